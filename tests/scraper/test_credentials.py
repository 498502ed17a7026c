"""Tests of credentials: loading, validation and redaction."""

from pathlib import Path

import pytest

from dataset.errors import BadInput
from scraper.credentials import Credential, check_required, load_credentials, redact, redact_posts
from scraper.errors import CredentialsMissing

TOKEN = Credential("SHOP_TOKEN", "a token of your app")
USER = Credential("SHOP_USER", "your number", required=False)


def secret_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "shop.env"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_credentials_file_overrides_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "from-environment")
    monkeypatch.setenv("SHOP_USER", " 12 ")
    text = '\ufeff# mine\r\nexport SHOP_TOKEN="from-$HOME-file"\r\nSHOP_USER=\nOTHER=1\n'
    credentials = load_credentials(secret_file(tmp_path, text), (TOKEN, USER))
    assert credentials == {"SHOP_TOKEN": "from-$HOME-file"}
    assert load_credentials(None, (TOKEN, USER)) == {
        "SHOP_TOKEN": "from-environment",
        "SHOP_USER": "12",
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_file_readable_by_others_is_rejected(tmp_path: Path, mode: int) -> None:
    with pytest.raises(BadInput, match="chmod 600"):
        load_credentials(secret_file(tmp_path, "SHOP_TOKEN=x", mode), (TOKEN,))


def test_missing_or_binary_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.env can't be read"):
        load_credentials(tmp_path / "nothing.env", (TOKEN,))
    file = secret_file(tmp_path, "")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="save it as text in UTF-8"):
        load_credentials(file, (TOKEN,))


@pytest.mark.parametrize("line", ["SHOP_TOKEN abcdef", 'SHOP_TOKEN="abcdef', "SHOP_TOKEN: abcdef"])
def test_invalid_line_is_reported_by_number_without_its_text(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadInput, match=r"shop\.env, line 2: write NAME=value") as error:
        load_credentials(secret_file(tmp_path, f"# mine\n{line}\n"), (TOKEN,))
    assert "abcdef" not in str(error.value)


@pytest.mark.parametrize("value", ["Bearer abcdef", '"abc\ndef"', "abc-дэф"])
def test_invalid_token_is_rejected_before_it_is_sent(tmp_path: Path, value: str) -> None:
    with pytest.raises(BadInput, match="SHOP_TOKEN has a space, a line break or a letter"):
        load_credentials(secret_file(tmp_path, f"SHOP_TOKEN={value}\n"), (TOKEN,))


def test_missing_credentials_are_listed_with_descriptions() -> None:
    with pytest.raises(CredentialsMissing, match=r"SHOP_TOKEN \(a token of your app\)"):
        check_required({}, (TOKEN, USER), "Shop")
    check_required({"SHOP_TOKEN": "x"}, (TOKEN, USER), "Shop")
    credentials = (TOKEN, Credential("SHOP_KEY", "its key"))
    with pytest.raises(CredentialsMissing, match=r"app\) and SHOP_KEY \(its key\): set them in"):
        check_required({}, credentials, "Shop")


def test_longer_secrets_are_hidden_first() -> None:
    text = redact("abcdef123 and abcdef and 42", {"A": "abcdef", "B": "abcdef123", "C": "42"})
    assert text == "[hidden] and [hidden] and 42"


def test_url_encoded_secrets_are_hidden() -> None:
    text = "AAAA%2Bbb%3D AAAA+bb= AAAA%252Bbb%253D"
    assert redact(text, {"SHOP_TOKEN": "AAAA%2Bbb%3D"}) == "[hidden] [hidden] [hidden]"


SECRET = "1.1000.madeup/tok+en99==zz"


@pytest.mark.parametrize(
    "encoded",
    [
        r"1.1000.madeup\/tok+en99==zz",
        r"1.1000.madeup\u002ftok\u002Ben99\u003d\u003Dzz",
        "1.1000.madeup%2ftok%2ben99%3d%3Dzz",
        "1.1000.madeup%252Ftok%252ben99%253D%253Dzz",
        "1.1000.madeup&#x2F;tok&#43;en99&equals;&#61;zz",
        "1.1000.madeup&amp;sol;tok&amp;#x2b;en99==zz",
        r"1.1000.madeup\\\/tok\x2ben99==zz",
        "%31.1000.%6dadeup/tok+en99==zz",
    ],
)
def test_encoded_secrets_are_hidden(encoded: str) -> None:
    text = f"a 'wrong' token {encoded} & more 100%"
    assert redact(text, {"SHOP_TOKEN": SECRET}) == "a 'wrong' token [hidden] & more 100%"


def test_texts_of_posts_keep_account_names() -> None:
    text = "https://shop.example/?access_token=abc%2Bdef&user=4242424"
    secrets = {"SHOP_KEY": "abc+def", "SHOP_USER": "4242424"}
    expected = "https://shop.example/?access_token=[hidden]&user=4242424"
    assert redact_posts(text, secrets) == expected
    assert redact_posts(text, {}) is text
