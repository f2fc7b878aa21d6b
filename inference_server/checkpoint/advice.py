"""What to do about a model that is not there, in commands that work where the server runs. Called by `check`."""

import re
from pathlib import Path

DEFAULT_NAME = "Qwen3-4B-Instruct-2507"
_CHECKOUT = Path(__file__).resolve().parents[2]
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_ADDRESS = re.compile(r"(?:hf://|https?://[\w.-]+/(?:models/)?)(\w[\w.-]*/\w[\w.-]*?)(?:\.git|/.*)?")
_QUANTISED = re.compile(r"-(GGUF|FP8|AWQ|GPTQ|bnb|MLX)([-_][\w.-]*)?$", re.IGNORECASE)


def of_missing(model: str, root: Path = _CHECKOUT) -> str:
    """Why there is no such directory, and the command that helps. root: where this package lies."""
    address = _HUB_ADDRESS.fullmatch(model)
    hub_name = address[1] if address else model.rstrip("/")
    if not address and not _is_hub_name(hub_name):
        return f"no such directory; {of_absent_checkpoint(model, root)}"
    why = f"the repository {hub_name} on a model hub, not a directory here"
    quantised = _QUANTISED.search(hub_name)
    if quantised:
        why += f", and {quantised[1]} weights are not supported; the unquantised model"
        hub_name = hub_name[: quantised.start()]
    name = hub_name.split("/")[1]
    if not _is_checkout(root):
        return f"{why}; {_mount(f'/app/{name}', is_new_place=True)}"
    return f"{why}: `make download MODEL={hub_name}`, then `make run MODEL=models/{name}`"


def of_absent_checkpoint(model: str, root: Path = _CHECKOUT) -> str:
    """How a checkpoint comes to that place."""
    name = Path(model).name
    if not _is_checkout(root):
        return _mount(str(Path(model).absolute()))
    download = "make download"
    if name.startswith("Qwen3-") and name != DEFAULT_NAME:
        download += f" MODEL=Qwen/{name}"
    else:
        name = DEFAULT_NAME
    return f"`{download}` fetches {name}, then `make run MODEL=models/{name}`; `make run` alone serves the demo model"


def _is_checkout(root: Path) -> bool:
    """An image has the packages alone."""
    return (root / "Makefile").is_file()


def _is_hub_name(model: str) -> bool:
    """`models/NAME` is one too by its form, but means the directory that `make download` makes."""
    owner = model.split("/")[0]
    return bool(_HUB_NAME.fullmatch(model)) and owner != "models" and not Path(owner).is_dir()


def _mount(place: str, is_new_place: bool = False) -> str:
    """place: absolute, inside the container."""
    mount = f'-v "$PWD/models/{Path(place).name}:{place}:ro"'
    setting = f" -e INFERENCE_MODEL={place}" if is_new_place else ""
    return (
        f"mount a checkpoint there: docker run {mount}{setting} (its left side is a directory of the host, where "
        "`make download` puts it); -e INFERENCE_MODEL=demo needs no download"
    )
