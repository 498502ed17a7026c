"""Load API keys and tokens from the environment or a file, and keep them out of logs and errors."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from html.entities import html5
from pathlib import Path
from urllib.parse import unquote

from dotenv.parser import Binding, parse_stream

from dataset.errors import BadInput
from scraper.errors import CredentialsMissing

# Shorter values are not redacted, because they may be part of ordinary words.
MIN_SECRET_CHARACTERS = 6
HIDDEN = "[hidden]"
# A text without these has no encoded characters.
ESCAPE_CHARACTERS = re.compile(r"[%\\&]")
ENTITY_NAMES: dict[str, list[str]] = {}
for _name, _character in html5.items():
    ENTITY_NAMES.setdefault(_character, []).append(_name)
# HTTP headers and cookies allow only visible ASCII characters in keys and tokens.
VISIBLE_ASCII = re.compile(r"[!-~]*")


@dataclass(frozen=True)
class Credential:
    """A credential that a site requires or accepts.

    Attributes:
        name: Name of the environment variable, such as TWITTER_TOKEN.
        what: Description for error messages.
        required: Whether the site can't be crawled without it.
    """

    name: str
    what: str
    required: bool = True


def is_account(name: str) -> bool:
    """Return whether a credential, such as SITE_USER, only names an account and is no secret."""
    return name.endswith("_USER")


def load_credentials(file: Path | None, credentials: Iterable[Credential]) -> dict[str, str]:
    """Load the values of credentials from a file and the environment; the file has precedence.

    Args:
        file: File of NAME=value lines (`.env` format); None for only the environment.
        credentials: The credentials of a site.

    Returns:
        Name -> value of the credentials that are set.

    Raises:
        BadInput: The file can't be read, other users may read it, or a value is invalid.
    """
    variables = {**os.environ, **(_read_file(file) if file else {})}
    values = {
        credential.name: variables.get(credential.name, "").strip() for credential in credentials
    }
    for name, value in values.items():
        # A line break in a header would allow header injection.
        if not VISIBLE_ASCII.fullmatch(value):
            raise BadInput(
                f"{name} has a space, a line break or a letter that no site uses in credentials:"
                " copy it again, without words such as Bearer before it"
            )
    return {name: value for name, value in values.items() if value}


def _read_file(file: Path) -> dict[str, str]:
    try:
        mode, lines = file.stat().st_mode, _parse_lines(file)
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
            # The message has no text of the line, because the line may hold a token.
            raise BadInput(f"--credentials {file}, line {line.original.line}: write NAME=value")
    return {line.key: line.value for line in lines if line.key and line.value is not None}


def _parse_lines(file: Path) -> list[Binding]:
    with file.open(encoding="utf-8-sig") as stream:
        return list(parse_stream(stream))


def check_required(values: Mapping[str, str], credentials: Iterable[Credential], site: str) -> None:
    """Check that all required credentials are set.

    Args:
        values: Name -> value of the credentials that are set.
        credentials: The credentials of the site.
        site: The site's title, for the error message.

    Raises:
        CredentialsMissing: A required credential is not set.
    """
    missing = [
        credential
        for credential in credentials
        if credential.required and credential.name not in values
    ]
    if missing:
        names = " and ".join(f"{credential.name} ({credential.what})" for credential in missing)
        raise CredentialsMissing(
            f"{site} needs {names}: set {'it' if len(missing) == 1 else 'them'} in the environment,"
            " or write NAME=value lines into a file that only you can read and name it with"
            " --credentials FILE"
        )


def redact(text: str, credentials: Mapping[str, str]) -> str:
    """Replace credentials in a text, such as an error message that repeats a token.

    Encoded forms are replaced too: URL encoding, JSON escapes and HTML entities, also mixed. Values
    shorter than MIN_SECRET_CHARACTERS are not replaced.

    Args:
        text: The text.
        credentials: Name -> value.
    """
    forms = {form for value in credentials.values() for form in (value, unquote(value))}
    # The longest first, so that no part of it remains if it contains a shorter one.
    for form in sorted(forms, key=len, reverse=True):
        if MIN_SECRET_CHARACTERS <= len(form) <= len(text):
            text = text.replace(form, HIDDEN)
            if ESCAPE_CHARACTERS.search(text):
                text = _encoded_pattern(form).sub(HIDDEN, text)
    return text


def redact_posts(text: str, credentials: Mapping[str, str]) -> str:
    """Replace credentials in a text of a post, except for account names, which posts contain."""
    return redact(text, {name: v for name, v in credentials.items() if not is_account(name)})


@lru_cache
def _encoded_pattern(secret: str) -> re.Pattern[str]:
    """Return a pattern of a secret of which each character may be encoded."""
    return re.compile("".join(map(_encoded_character, secret)))


def _encoded_character(character: str) -> str:
    code = ord(character)
    # Encoded several times: %25 is an encoded percent sign, &amp; an encoded ampersand.
    percent = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in character.encode())
    names = "|".join(map(re.escape, ENTITY_NAMES.get(character, ())))
    entity = f"#0*{code};?|#[xX]0*(?i:{code:x});?" + (f"|{names}" if names else "")
    return (
        rf"(?:\\*{re.escape(character)}|{percent}|\\+u(?i:{code:04x})|\\+x(?i:{code:02x})"
        f"|&(?:amp;)*(?:{entity}))"
    )
