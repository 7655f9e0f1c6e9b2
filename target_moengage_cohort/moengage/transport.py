"""One attempt at one request; never raises for what MoEngage or the network does."""

from __future__ import annotations

import functools
import logging
import socket
import ssl
import threading
import time
import typing as t
import zlib
from base64 import b64encode
from importlib import metadata
from urllib.parse import urlsplit

import msgspec
import requests
from requests.auth import HTTPBasicAuth
from urllib3.exceptions import NewConnectionError

from target_moengage_cohort.moengage import answers, api_answers, calls, cohort_sync, deadline
from target_moengage_cohort.moengage.answers import Answer, Outcome
from target_moengage_cohort.settings import Settings, is_loopback

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.moengage.calls import Call

logger = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 65_536
_MAX_CALL_ANSWER_BYTES = 8_388_608  # a list of 1,000 segments comes in one answer
_ENCODINGS = {"gzip", "x-gzip", "deflate"}
_ANY_ZLIB_FORMAT = 32 + zlib.MAX_WBITS
_CONNECT_TIMEOUT_SECONDS = 15
_UNTRUSTED = (
    "the server's TLS certificate is not trusted ({}); check api_url. If you use a proxy or "
    "your own CA, set REQUESTS_CA_BUNDLE to the file with its certificates"
)
_Auth: t.TypeAlias = "t.Callable[[requests.PreparedRequest], requests.PreparedRequest]"
_BROKEN = (
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


class _Local(threading.local):
    """The session of each thread: one of `requests` is not meant to be shared."""

    def __init__(self) -> None:
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, deadline.DeadlineAdapter())


class _Request(t.NamedTuple):
    method: str
    path: str
    shown_path: str
    body: bytes
    auth: _Auth
    headers: dict[str, str]
    max_answer_bytes: int
    classify: Callable[..., Answer]
    private_values: Callable[[bytes], Iterator[str]]


class Transport:
    """Sends requests to MoEngage's APIs; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key_settings = {
            api: api.value if getattr(settings, api) else "data_api_key" for api in calls.Api
        }
        self._keys = {api: getattr(settings, name) for api, name in self._key_settings.items()}
        self._headers = {
            "MOE-APPKEY": settings.workspace_id,
            "Content-Type": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"target-moengage-cohort/{metadata.version('target-moengage-cohort')}",
        }
        seconds = settings.request_timeout_seconds
        self._timeout = (min(seconds, _CONNECT_TIMEOUT_SECONDS), seconds)
        # Plain http is for loopback alone; a proxy would carry the credentials elsewhere.
        loopback = is_loopback(urlsplit(settings.base_url).hostname or "")
        self._proxies = {"http": "", "https": "", "all": ""} if loopback else {}
        # It logs unparsable input, and an answer may quote the key or a member.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._local = _Local()

    def send(self, body: bytes) -> Answer:
        """Send one request body to Cohort Sync, as `Envelope.body` returns it, once."""
        auth = HTTPBasicAuth(self._settings.workspace_id, self._settings.data_api_key)
        return self._attempt(self._post(cohort_sync.COHORT_SYNC_PATH, body, auth))

    def log_in(self) -> Answer:
        """Have MoEngage check the credentials, once; no cohort is involved."""
        body = cohort_sync.log_in_body(self._settings)
        return self._attempt(self._post(cohort_sync.AUTHENTICATION_PATH, body, _add_no_header))

    def call(self, call: Call) -> Answer:
        """Send a call of the Segments or the Analytics API, once."""
        name = self._settings.db_name
        answer = self._attempt(
            _Request(
                call.method,
                call.path,
                call.shown_path,
                call.body,
                HTTPBasicAuth(self._settings.workspace_id, self._keys[call.api]),
                self._headers if name is None else self._headers | {"MOE-DBNAME": name},
                _MAX_CALL_ANSWER_BYTES,
                functools.partial(api_answers.classify, names=calls.names(call)),
                lambda body: calls.private_values(body or call.earlier),
            )
        )
        return msgspec.structs.replace(answer, key_setting=self._key_settings[call.api])

    def _post(self, path: str, body: bytes, auth: _Auth) -> _Request:
        return _Request(
            "POST",
            path,
            path,
            body,
            auth,
            self._headers,
            _MAX_ANSWER_BYTES,
            answers.classify,
            cohort_sync.identifiers,
        )

    def _attempt(self, request: _Request) -> Answer:
        began = time.monotonic()
        answer = self._exchange(request)
        seconds = time.monotonic() - began
        shown = answer.status or answer.outcome.value  # never its message, which may quote the body
        logger.debug(
            "%s: %s, %d bytes sent, %.0f ms, request id %s",
            f"{request.method} {request.shown_path}",
            shown,
            len(request.body),
            seconds * 1000,
            answer.request_id or "none",
            extra={"code": "request"},
        )
        return msgspec.structs.replace(answer, seconds=seconds)

    def _exchange(self, request: _Request) -> Answer:
        try:
            response, content = self._respond(request)
        except OSError as error:  # all errors of `requests` are
            return self._classify_failure(error)
        return request.classify(
            response.status_code,
            response.headers,
            content,
            now=time.time(),
            secrets=lambda: self._secrets(request),
        )

    def _respond(self, request: _Request) -> tuple[requests.Response, bytes]:
        """Send a request; return the response, and as much of its content as an answer may have."""
        deadline.begin(self._timeout[1])
        with self._local.session.request(
            request.method,
            self._settings.base_url + request.path,
            data=request.body,
            headers=request.headers,
            auth=request.auth,
            timeout=self._timeout,
            proxies=self._proxies,
            allow_redirects=False,
            stream=True,
        ) as response:
            # Some versions of its decoder inflate each chunk as a whole, to any size.
            encoding = response.raw.headers.pop("Content-Encoding", "").strip().lower()
            content = b""
            for chunk in response.iter_content(_MAX_ANSWER_BYTES):
                content += chunk
                if len(content) >= request.max_answer_bytes:
                    break
        if encoding in {"", "identity"}:
            return response, content
        if encoding not in _ENCODINGS:
            raise requests.exceptions.ContentDecodingError
        return response, _inflated(content, request.max_answer_bytes)

    def _classify_failure(self, error: OSError) -> Answer:
        """Return the answer that stands for a missing response."""
        outcome, sent, causes = Outcome.RETRY, True, [*_causes(error)]
        if isinstance(error, requests.ConnectTimeout):
            summary, sent = f"no connection within {self._timeout[0]} s", False
        elif isinstance(error, requests.Timeout):
            summary = f"no answer within {self._timeout[1]} s"
        elif isinstance(error, requests.exceptions.SSLError):
            summary = "the TLS connection failed"
            for cause in causes:
                if isinstance(cause, ssl.SSLCertVerificationError):
                    outcome, summary = Outcome.UNEXPECTED, _UNTRUSTED.format(cause.verify_message)
        elif isinstance(error, _BROKEN):
            # The class of the innermost cause is enough for a log, and it quotes nothing.
            is_unknown = isinstance(causes[-1], socket.gaierror)
            why = "host name not found" if is_unknown else type(causes[-1]).__name__
            summary = f"the connection failed ({why})"
            sent = not any(isinstance(cause, NewConnectionError) for cause in causes)
        elif isinstance(error, requests.RequestException):
            outcome, summary = Outcome.UNEXPECTED, f"the request failed ({type(error).__name__})"
        else:
            outcome, sent = Outcome.UNEXPECTED, False
            summary = (
                f"the request could not be made ({error.strerror or type(error).__name__}); "
                "check REQUESTS_CA_BUNDLE and other environment variables that contain paths"
            )
        host = urlsplit(self._settings.base_url).netloc
        return Answer(outcome, f"{host}: {summary}", sent=sent)

    def _secrets(self, request: _Request) -> Iterator[str]:
        """Yield what no message may show: the keys, and the identifiers in a request."""
        for key in {self._settings.data_api_key, *self._keys.values()}:
            yield key
            yield b64encode(f"{self._settings.workspace_id}:{key}".encode()).decode()
        yield from request.private_values(request.body)


def _inflated(content: bytes, max_bytes: int) -> bytes:
    """Return as much of a compressed content as an answer may have."""
    try:
        return zlib.decompressobj(_ANY_ZLIB_FORMAT).decompress(content, max_bytes)
    except zlib.error as error:
        raise requests.exceptions.ContentDecodingError(error) from None


def _add_no_header(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request  # its body has the credentials; `requests` might add those of ~/.netrc


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; urllib3 keeps some as the `reason` of an argument."""
    while error is not None:
        yield error
        reason = getattr(error.args[0], "reason", None) if error.args else None
        outer = error.__cause__ or error.__context__
        error = reason if isinstance(reason, BaseException) else outer
