"""Where images come from."""

import json
from pathlib import Path
import urllib.error
import urllib.parse
import urllib.request

_ACCEPT = ", ".join([
    "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json"])


class SourceError(Exception):
    """A source did not give what was asked for."""


class Source:
    """Brings the documents and blobs of an image. What it brings needs no trust: the engine checks it."""

    def document(self, name):
        """The bytes of the manifest or index with this tag or digest."""
        raise NotImplementedError

    def blob(self, digest, offset, length):
        """Exactly these bytes of a blob."""
        raise NotImplementedError


class Registry(Source):
    """A repository in a registry, with an anonymous token where the registry asks for one."""

    def __init__(self, url, repository, headers=None, timeout=60):
        self.base = f"{url.rstrip('/')}/v2/{repository}"
        self.repository, self.headers, self.timeout = repository, dict(headers or {}), timeout

    def document(self, name):
        return self._get(f"{self.base}/manifests/{name}", {"Accept": _ACCEPT})

    def blob(self, digest, offset, length):
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        data = self._get(f"{self.base}/blobs/{digest}", headers)
        if len(data) != length:
            raise SourceError(f"{self.base} gives {len(data)} bytes of {digest} instead of the {length} asked for")
        return data

    def _get(self, url, headers, retry=True):
        request = urllib.request.Request(url, headers={**self.headers, **headers})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                if "Range" in headers and response.status != 206:
                    raise SourceError(f"{url} does not give parts of blobs (status {response.status})")
                return response.read()
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code == 401 and retry and challenge.lower().startswith("bearer "):
                self.headers["Authorization"] = "Bearer " + self._token(challenge)
                return self._get(url, headers, retry=False)
            raise SourceError(f"{url}: {error}") from error
        except OSError as error:
            raise SourceError(f"{url}: {error}") from error

    def _token(self, challenge):
        parts = dict(part.split("=", 1) for part in urllib.request.parse_http_list(challenge[7:]))
        parts = {key: value.strip('"') for key, value in parts.items()}
        query = {"service": parts.get("service", ""), "scope": f"repository:{self.repository}:pull"}
        answer = json.loads(self._get(f"{parts['realm']}?{urllib.parse.urlencode(query)}", {}, retry=False))
        return answer.get("token") or answer["access_token"]


class Files(Source):
    """An OCI layout in a directory."""

    def __init__(self, directory):
        self.directory = Path(directory)

    def document(self, name):
        if ":" not in name:
            index = json.loads((self.directory / "index.json").read_bytes())
            tag = "org.opencontainers.image.ref.name"
            found = [it for it in index["manifests"] if (it.get("annotations") or {}).get(tag) == name]
            if not found:
                raise SourceError(f"{self.directory} has no image {name}")
            name = found[0]["digest"]
        return self._path(name).read_bytes()

    def blob(self, digest, offset, length):
        with open(self._path(digest), "rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise SourceError(f"{digest} ends too early")
        return data

    def _path(self, digest):
        algorithm, _, name = digest.partition(":")
        if not (algorithm.isalnum() and name.isalnum()):
            raise SourceError(f"{digest!r} is no digest")
        return self.directory / "blobs" / algorithm / name
