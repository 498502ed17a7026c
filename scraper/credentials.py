"""Keys and tokens: from the environment or a file, never into an address, a log or an error."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus, unquote

from dotenv.parser import Binding, parse_stream

from dataset.errors import BadInput
from scraper.errors import CredentialsMissing

# Shorter ones would blot out common words.
SHORTEST_SECRET = 6
HIDDEN = "[hidden]"
# What keys and tokens are made of.
VISIBLE = re.compile(r"[!-~]*")


@dataclass(frozen=True)
class Credential:
    """What a site wants to know. `name`: environment variable, SITE_WHAT; `what`: for people."""

    name: str
    what: str
    required: bool = True


def is_account(name: str) -> bool:
    """Whether the credential NAME, such as SITE_USER, only says whose account it is."""
    return name.endswith("_USER")


def load_credentials(file: Path | None, wanted: Iterable[Credential]) -> dict[str, str]:
    """The values of WANTED that are set: in FILE, else in the environment.

    FILE holds NAME=value lines, as `.env` files do.

    Raises:
        BadInput: FILE can't be read, or others on this machine could read it; or a value can't be
            right.
    """
    given = {**os.environ, **(_from_file(file) if file else {})}
    found = {one.name: given.get(one.name, "").strip() for one in wanted}
    for name, value in found.items():
        # A line break would end the header that it is sent in.
        if not VISIBLE.fullmatch(value):
            raise BadInput(
                f"{name} has a space, a line break or a letter that none of the sites uses: copy"
                " it again, without words such as Bearer before it"
            )
    return {name: value for name, value in found.items() if value}


def _from_file(file: Path) -> dict[str, str]:
    try:
        mode, lines = file.stat().st_mode, _lines(file)
    except OSError as error:
        raise BadInput(f"--credentials {file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"--credentials {file} can't be read: save it as text in UTF-8") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput(
            f"--credentials {file} can be read by others on this machine; run: chmod 600 {file}"
        )
    for line in lines:
        if line.error:
            # Not the line itself: there may be a token in it.
            raise BadInput(f"--credentials {file}, line {line.original.line}: write NAME=value")
    return {line.key: line.value for line in lines if line.key and line.value is not None}


def _lines(file: Path) -> list[Binding]:
    with file.open(encoding="utf-8-sig") as stream:
        return list(parse_stream(stream))


def require(credentials: Mapping[str, str], wanted: Iterable[Credential], site: str) -> None:
    """Nothing, when every required credential is set.

    Raises:
        CredentialsMissing: one is not.
    """
    missing = [one for one in wanted if one.required and one.name not in credentials]
    if missing:
        names = " and ".join(f"{one.name} ({one.what})" for one in missing)
        raise CredentialsMissing(
            f"{site} needs {names}: set {'it' if len(missing) == 1 else 'them'} in the environment,"
            " or write NAME=value lines into a file that only you can read and name it with"
            " --credentials FILE"
        )


def hide(text: str, credentials: Mapping[str, str]) -> str:
    """TEXT without the values of CREDENTIALS: sites repeat a wrong token in their answers.

    Nor with their signs written as in addresses, or read as there: X's tokens have %2B and %3D.
    """
    for value in _spellings(credentials.values()):
        text = text.replace(value, HIDDEN)
    return text


def hide_tokens(body: bytes, credentials: Mapping[str, str]) -> bytes:
    """BODY without the secrets of CREDENTIALS: what is read from it goes into the catalogue."""
    secrets = (value for name, value in credentials.items() if not is_account(name))
    for value in _spellings(secrets):
        body = body.replace(value.encode("utf-8", "surrogateescape"), HIDDEN.encode())
    return body


def _spellings(values: Iterable[str]) -> list[str]:
    """Each of VALUES as it is and in addresses, the longest first; without the shortest."""
    ways = {way(value) for value in values for way in (str, quote_plus, unquote)}
    return sorted((one for one in ways if len(one) >= SHORTEST_SECRET), key=len, reverse=True)
