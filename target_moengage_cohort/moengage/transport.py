"""One attempt at one request, classified; never raises for what MoEngage or the network does."""

from __future__ import annotations

import logging
import ssl
import threading
import time
import typing as t
from base64 import b64encode
from importlib import metadata
from urllib.parse import urlsplit

import msgspec
import requests
from urllib3.exceptions import NewConnectionError

from target_moengage_cohort.moengage.answers import Answer, Outcome, classify
from target_moengage_cohort.settings import is_loopback

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.settings import Settings

COHORT_SYNC_PATH = "/v1/integrations/cohortsync"
AUTHENTICATION_PATH = "/v1/integrations/authentication"
_MAX_ANSWER_BYTES = 65_536
_CONNECT_TIMEOUT_SECONDS = 15
_UNTRUSTED = (
    "the server's TLS certificate is not trusted ({}); check api_url, and if a proxy or a CA of "
    "your own stands between, name its certificates' file in REQUESTS_CA_BUNDLE"
)
_Auth: t.TypeAlias = (
    "tuple[str, str] | t.Callable[[requests.PreparedRequest], requests.PreparedRequest]"
)
_BROKEN = (
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


class Client:
    """Sends request bodies to the Cohort Sync API; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._auth = (settings.workspace_id, settings.data_api_key)
        self._headers = {
            "MOE-APPKEY": settings.workspace_id,
            "Content-Type": "application/json",
            "User-Agent": f"target-moengage-cohort/{metadata.version('target-moengage-cohort')}",
        }
        seconds = settings.request_timeout_seconds
        self._timeout = (min(seconds, _CONNECT_TIMEOUT_SECONDS), seconds)
        # Plain http is for loopback alone; a proxy would carry the credentials elsewhere.
        loopback = is_loopback(urlsplit(settings.base_url).hostname or "")
        self._proxies = {"http": "", "https": "", "all": ""} if loopback else {}
        # It logs what it cannot parse, and an answer may quote the key or a member.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._threads = threading.local()  # a `requests` session is not meant to be shared

    def attempt(self, body: bytes) -> Answer:
        """Send one request body, once.

        Args:
            body: As `Envelope.body` makes it.
        """
        return self._asked(COHORT_SYNC_PATH, body, self._auth, lambda: self._secrets(body))

    def log_in(self) -> Answer:
        """Have MoEngage check the credentials, once; it touches no cohort."""
        settings = self._settings
        login = {
            "app_id": settings.workspace_id,
            "app_secret": settings.data_api_key,
            "source": settings.partner,
            "region": settings.data_center,
        }
        return self._asked(
            AUTHENTICATION_PATH, msgspec.json.encode(login), _in_the_body, self._credentials
        )

    def _asked(
        self,
        path: str,
        body: bytes,
        auth: _Auth,
        secrets: t.Callable[[], Iterator[str]],
    ) -> Answer:
        """Post a body to one of the endpoints, once, and classify what comes of it."""
        try:
            response, content = self._posted(path, body, auth)
        except requests.RequestException as error:
            return self._failed(error)
        except OSError as error:
            what = f"no request could be made ({error.strerror or type(error).__name__})"
            what += "; is REQUESTS_CA_BUNDLE or another variable with a path set wrong?"
            return Answer(Outcome.UNEXPECTED, what, sent=False)
        return classify(
            response.status_code,
            response.headers,
            content,
            now=time.time(),
            secrets=secrets,
        )

    def _posted(self, path: str, body: bytes, auth: _Auth) -> tuple[requests.Response, bytes]:
        """Post a body; return the answer, and so much of its content as an answer may have."""
        deadline = time.monotonic() + self._timeout[1]
        with self._session().post(
            self._settings.base_url + path,
            data=body,
            headers=self._headers,
            auth=auth,
            timeout=self._timeout,
            proxies=self._proxies,
            allow_redirects=False,
            stream=True,
        ) as response:
            content = b""
            for chunk in response.iter_content(_MAX_ANSWER_BYTES):
                content += chunk
                if len(content) >= _MAX_ANSWER_BYTES:
                    break
                if time.monotonic() > deadline:  # each read has a time-out, and this is all
                    raise requests.ReadTimeout
        return response, content

    def _failed(self, error: requests.RequestException) -> Answer:
        """What it means that there was no answer."""
        outcome, sent = Outcome.RETRY, True
        if isinstance(error, requests.ConnectTimeout):
            what, sent = f"no connection within {self._timeout[0]} s", False
        elif isinstance(error, requests.Timeout):
            what = f"no answer within {self._timeout[1]} s"
        elif isinstance(error, requests.exceptions.SSLError):
            what = "the TLS connection failed"
            if (why := _why_untrusted(error)) is not None:
                outcome, what = Outcome.UNEXPECTED, _UNTRUSTED.format(why)
        elif isinstance(error, _BROKEN):
            what = f"the connection failed ({_cause(error)})"
            reason = getattr(error.args[0], "reason", None) if error.args else None
            sent = not isinstance(reason, NewConnectionError)
        else:
            outcome, what = Outcome.UNEXPECTED, f"the request failed ({type(error).__name__})"
        return Answer(outcome, what, sent=sent)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
        return session

    def _credentials(self) -> Iterator[str]:
        yield self._auth[1]
        yield b64encode(":".join(self._auth).encode()).decode()

    def _secrets(self, body: bytes) -> Iterator[str]:
        yield from self._credentials()
        for member in msgspec.json.decode(body)["parameters"]["members"]:
            yield from member.values()


def _in_the_body(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no header: the body has the credentials, and without this ~/.netrc might add others."""
    return request


def _why_untrusted(error: BaseException | None) -> str | None:
    """Why a certificate was refused, in OpenSSL's words; ``None`` if it was something else."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        inner = error.args[0] if error.args else None
        reason = getattr(inner, "reason", None)  # urllib3 keeps it there
        error = (
            reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
        )
    return None if error is None else error.verify_message


def _cause(error: BaseException) -> str:
    """The innermost cause's class: enough for a log, and it quotes nothing."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return type(error).__name__
