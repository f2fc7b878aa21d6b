"""`python -m inference_server.download.wait DIRECTORY`: ends when a checkpoint is there whole, without a network.

For the init container of a pod that serves what another one downloads. It looks at names alone, for a download gives a
file its name only when its bytes are checked.
"""

import json
import logging
import signal
import sys
import time
from pathlib import Path

import click

_log = logging.getLogger("inference_server.download.wait")
_LOOK_EVERY_S, _SAY_EVERY_S = 2.0, 60.0
_INDEX, _ALONE = "model.safetensors.index.json", "model.safetensors"
_TOKENIZERS = (["tokenizer.json"], ["vocab.json", "merges.txt"])


def missing_files(directory: Path) -> list[str]:
    """What a server needs and is not there yet, by name."""
    tokenizer = min((_absent(directory, names) for names in _TOKENIZERS), key=len)
    return _absent(directory, ["config.json"]) + tokenizer + _absent(directory, _weight_names(directory))


def _absent(directory: Path, names: list[str]) -> list[str]:
    return [name for name in names if not (directory / name).is_file()]


def _weight_names(directory: Path) -> list[str]:
    try:
        index = json.loads((directory / _INDEX).read_bytes())
        return sorted({str(name) for name in index["weight_map"].values()})
    except FileNotFoundError:
        return [_ALONE]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.ClickException(f"{directory / _INDEX}: not an index of weights; run the download again") from error


@click.command(name="python -m inference_server.download.wait")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--timeout-s", default=3600, show_default=True, type=click.IntRange(min=0), help="How long before it gives up."
)
def wait(directory: Path, timeout_s: int) -> None:
    """Waits until DIRECTORY holds a whole checkpoint."""
    begun_s, said_s, said = time.monotonic(), -_SAY_EVERY_S, [""]
    while missing := missing_files(directory):
        waited_s = time.monotonic() - begun_s
        if missing != said or waited_s - said_s >= _SAY_EVERY_S:
            said, said_s = missing, waited_s
            _log.info("%s: waiting for %s", directory, ", ".join(missing))
        if waited_s >= timeout_s:
            raise click.ClickException(f"{directory}: {', '.join(missing)} did not come within {timeout_s} s")
        time.sleep(min(_LOOK_EVERY_S, timeout_s - waited_s))
    _log.info("%s: the checkpoint is there", directory)


def main() -> None:
    """The command line, with errors of one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the first process of a container ignores it otherwise
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO", stream=sys.stderr)
    try:
        wait.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except click.Abort:  # click's name for an interrupt
        _fail("interrupted", 130)


def _fail(line: str, exit_code: int) -> None:
    print(f"inference_server.download.wait: {line}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
