"""What can go wrong between a client and the Hub, one kind each, and which requests it befalls."""

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "cut",  # the connection ends in mid-file
    "wrong size",  # a shorter file, with headers that say so
    "wrong bytes",  # as many bytes as there should be, one of them another
    "html",  # a web page with status 200
    "status",  # an error status
    "redirect loop",
    "silent",  # takes the request and never answers
    "stalled",  # stops in mid-file and keeps the connection open
    "no range",  # the whole file with status 200, whatever range was asked for
    "wrong range",  # status 206, but of other bytes than were asked for
    "changed",  # another ETag each time, as of a file that is replaced again and again
]


@dataclass
class Fault:
    """Befalls requests whose path ends with (or, with a ``*``, contains) ``path``.

    Args:
        path: end of the request's path, as in ``model.safetensors`` or ``resolve/main/config.json``.
        kind: see above.
        times: how many requests it befalls; None is all.
        skip: how many such requests go well first.
        at: where in the body, from 0 to 1, a cut, a stall or a wrong byte is.
        code: the status of an error.
        methods: the methods that it befalls.
        host: ``hub``, ``cdn``, or any.
        headers: more headers of an error, as ``{"Retry-After": "0"}``.
        stalls: set when an answer has stopped in mid-file.
    """

    path: str
    kind: Kind
    times: int | None = None
    skip: int = 0
    at: float = 0.5
    code: int = 503
    methods: tuple[str, ...] = ("GET",)
    host: Literal["hub", "cdn", "any"] = "any"
    headers: dict[str, str] = field(default_factory=dict)
    befell: int = 0
    stalls: threading.Event = field(default_factory=threading.Event)


class Faults:
    """The faults of a server; the first that is due befalls a request."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def due(self, host: str, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                meant = fault.path[1:] in path if fault.path.startswith("*") else path.endswith(fault.path)
                if not meant or method not in fault.methods or fault.host not in (host, "any"):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times is None or fault.befell < fault.times:
                    fault.befell += 1
                    return fault
        return None
