"""One attempt at one request, classified; never raises for what MoEngage or the network does."""

from __future__ import annotations

import threading
import time
import typing as t
from base64 import b64encode
from importlib import metadata
from urllib.parse import urlsplit

import msgspec
import requests

from target_moengage_cohort.delivery.answers import Answer, Outcome, classify
from target_moengage_cohort.settings import is_loopback

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.settings import Settings

COHORT_SYNC_PATH = "/v1/integrations/cohortsync"
_MAX_ANSWER_BYTES = 65_536
_CONNECT_TIMEOUT_SECONDS = 15
_BROKEN = (
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


class Client:
    """Sends request bodies to the Cohort Sync API; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.base_url + COHORT_SYNC_PATH
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
        self._threads = threading.local()  # a `requests` session is not meant to be shared

    def attempt(self, body: bytes) -> Answer:
        """Send one request body, once.

        Args:
            body: As `Envelope.body` makes it.
        """
        deadline = time.monotonic() + self._timeout[1]
        try:
            with self._session().post(
                self._url,
                data=body,
                headers=self._headers,
                auth=self._auth,
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
        except requests.Timeout:
            return Answer(Outcome.RETRY, f"no answer within {self._timeout[1]} s")
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return Answer(Outcome.UNEXPECTED, "the server's TLS certificate is not trusted")
            return Answer(Outcome.RETRY, "the TLS connection failed")
        except _BROKEN as error:
            return Answer(Outcome.RETRY, f"the connection failed ({_cause(error)})")
        except requests.RequestException as error:
            return Answer(Outcome.UNEXPECTED, f"the request failed ({type(error).__name__})")
        return classify(
            response.status_code,
            response.headers,
            content,
            now=time.time(),
            secrets=lambda: self._secrets(body),
        )

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
        return session

    def _secrets(self, body: bytes) -> Iterator[str]:
        yield self._auth[1]
        yield b64encode(":".join(self._auth).encode()).decode()
        for member in msgspec.json.decode(body)["parameters"]["members"]:
            yield from member.values()


def _cause(error: BaseException) -> str:
    """The innermost cause's class: enough for a log, and it quotes nothing."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return type(error).__name__
