"""One attempt at one request; never raises for what MoEngage or the network does."""

from __future__ import annotations

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

import requests
from requests.auth import HTTPBasicAuth
from urllib3.exceptions import NewConnectionError

from target_moengage_cohort.moengage import cohort_sync, deadline
from target_moengage_cohort.moengage.answers import Answer, Outcome, classify
from target_moengage_cohort.settings import Settings, is_loopback

if t.TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 65_536
_ENCODINGS = {"gzip", "x-gzip", "deflate"}
_ANY_ZLIB_FORMAT = 32 + zlib.MAX_WBITS
_CONNECT_TIMEOUT_SECONDS = 15
_UNTRUSTED = (
    "the server's TLS certificate is not trusted ({}); check api_url. If a proxy or a CA of your "
    "own is involved, set REQUESTS_CA_BUNDLE to the file with its certificates"
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


class Transport:
    """Sends request bodies to the Cohort Sync API; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._credentials = (settings.workspace_id, settings.data_api_key)
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
        """Send one request body, as `Envelope.body` returns it, once."""
        return self._attempt(cohort_sync.COHORT_SYNC_PATH, body, HTTPBasicAuth(*self._credentials))

    def log_in(self) -> Answer:
        """Have MoEngage check the credentials, once; no cohort is involved."""
        body = cohort_sync.log_in_body(self._settings)
        return self._attempt(cohort_sync.AUTHENTICATION_PATH, body, _add_no_header)

    def _attempt(self, path: str, body: bytes, auth: _Auth) -> Answer:
        began = time.monotonic()
        answer = self._exchange(path, body, auth)
        milliseconds = (time.monotonic() - began) * 1000
        shown = answer.status or answer.outcome.value  # never its message, which may quote the body
        logger.debug(
            "POST %s: %s, %d bytes sent, %.0f ms, request id %s",
            path,
            shown,
            len(body),
            milliseconds,
            answer.request_id or "none",
            extra={"code": "request"},
        )
        return answer

    def _exchange(self, path: str, body: bytes, auth: _Auth) -> Answer:
        try:
            response, content = self._post(path, body, auth)
        except OSError as error:  # all errors of `requests` are
            return self._classify_failure(error)
        return classify(
            response.status_code,
            response.headers,
            content,
            now=time.time(),
            secrets=lambda: self._secrets(body),
        )

    def _post(self, path: str, body: bytes, auth: _Auth) -> tuple[requests.Response, bytes]:
        """Post a body; return the response, and as much of its content as an answer may have."""
        deadline.begin(self._timeout[1])
        with self._local.session.post(
            self._settings.base_url + path,
            data=body,
            headers=self._headers,
            auth=auth,
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
                if len(content) >= _MAX_ANSWER_BYTES:
                    break
        if encoding in {"", "identity"}:
            return response, content
        if encoding not in _ENCODINGS:
            raise requests.exceptions.ContentDecodingError
        return response, _inflated(content)

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
                f"the request could not be made ({error.strerror or type(error).__name__}); check "
                "REQUESTS_CA_BUNDLE and other variables that contain paths"
            )
        host = urlsplit(self._settings.base_url).netloc
        return Answer(outcome, f"{host}: {summary}", sent=sent)

    def _secrets(self, body: bytes) -> Iterator[str]:
        """Yield what no message may show: the key, and the identifiers in a request."""
        yield self._credentials[1]
        yield b64encode(":".join(self._credentials).encode()).decode()
        yield from cohort_sync.identifiers(body)


def _inflated(content: bytes) -> bytes:
    """Return as much of a compressed content as an answer may have."""
    try:
        return zlib.decompressobj(_ANY_ZLIB_FORMAT).decompress(content, _MAX_ANSWER_BYTES)
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
