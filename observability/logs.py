"""Log lines for a terminal or for a collector. A record's `fields` are shown as key=value, or as JSON's own keys.

Text from outside is escaped, so that no input can begin a line of its own.
"""

import datetime
import json
import logging
import sys
from typing import Any

from observability.stream import NonBlockingStream

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def configure_logs(level: str, log_format: str) -> None:
    """To be called once, by the program. level: debug to error. log_format: text or json."""
    handler, formatter = logging.StreamHandler(sys.stderr), JsonFormatter() if log_format == "json" else TextFormatter()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if isinstance(sys.stderr, NonBlockingStream):
        sys.stderr.notice = lambda count: formatter.format(_dropped(count)) + "\n"


def _dropped(count: int) -> logging.LogRecord:
    said = "dropped %d log lines, because stderr was not read or could not be written"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, said, (count,), None)


def fields(**named: object) -> dict[str, dict[str, object]]:
    """What a log call takes as `extra`. None is left out."""
    return {"fields": {name: value for name, value in named.items() if value is not None}}


class TextFormatter(logging.Formatter):
    """`14:30:02 INFO name: message key=value`; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        pairs = (f" {name}={value}" for name, value in _fields(record).items())
        return (super().formatMessage(record) + "".join(pairs)).translate(_CONTROL)

    def formatException(self, ei: Any) -> str:
        """Indented, because an exception's words may hold line ends."""
        return "\n".join("  " + line.translate(_CONTROL) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, the fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(_fields(record) | line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = getattr(record, "fields", {})
    return found
