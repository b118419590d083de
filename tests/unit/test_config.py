"""Configuration: where values come from, and errors that name file, key and rule."""

import stat

import pytest

from tailorbird.app.config import Config, key_hash, load_config, load_keys, load_placements
from tailorbird.errors import ConfigurationError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run each test in a folder without configuration and without variables of this machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("WRITE_KEY", "SERVER_KEY", "ADMIN_KEY", "ANALYTICS_JS_DIR"):
        monkeypatch.delenv(f"TAILORBIRD_{name}", raising=False)


# --- tailorbird.toml ----------------------------------------------------------------------------------


def test_without_a_file_there_are_defaults():
    assert load_config(None, {}) == Config()


def test_the_file_in_the_folder_is_read(tmp_path):
    (tmp_path / "tailorbird.toml").write_text('port = 9090\nholdout = 0.2\ndata = "here"\n')
    assert load_config(None, {}) == Config(port=9090, holdout=0.2, data="here")


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text('port = 9090\nhost = "0.0.0.0"\n')
    assert load_config(path, {"port": 7070, "host": None}) == Config(port=7070, host="0.0.0.0")


def test_the_browser_clients_folder_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("TAILORBIRD_ANALYTICS_JS_DIR", "/clients")
    assert load_config(None, {}).analytics_js == "/clients"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 70000", ["`int` <= 65535", "$.port"]),
        ('port = "many"', ["Expected `int`", "$.port"]),
        ("holdout = 1.5", ["<= 1.0", "$.holdout"]),
        ("checkpoint_seconds = 0", ["> 0.0", "$.checkpoint_seconds"]),
        ('log_level = "loud"', ["'loud'", "$.log_level"]),
        ('global_privacy_control = "ignore"', ["'ignore'", "$.global_privacy_control"]),
        ("memory_mib = 1", [">= 64", "$.memory_mib"]),
        ("prot = 8080", ["unknown field `prot`"]),
        ("port =", ["is not TOML"]),
    ],
)
def test_an_error_names_file_key_and_rule(tmp_path, text, words):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, {})
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.toml: cannot be read"):
        load_config(tmp_path / "absent.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"bytes\.toml: is not TOML"):
        load_config(tmp_path / "bytes.toml", {})


# --- placements ---------------------------------------------------------------------------------------


def test_placements_lie_beside_the_configuration_and_are_called_as_their_files(tmp_path):
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "hero.toml").write_text('[[variants]]\nid = "a"\n[variants.value]\nheadline = "Hi"\n')
    (folder / "list.toml").write_text('key = "home-list"\nkind = "list"\n[goal]\nevent = "Bought"\n')
    (folder / "notes.txt").write_text("not a placement")
    found = load_placements(tmp_path / "tailorbird.toml")
    assert [(path.name, placement.key) for path, placement in found] == [
        ("hero.toml", "hero"),
        ("list.toml", "home-list"),
    ]
    assert found[0][1].variants[0].value == {"headline": "Hi"}
    assert load_placements(None) == [(path.relative_to(tmp_path), placement) for path, placement in found]


def test_without_a_folder_there_are_no_placements(tmp_path):
    assert load_placements(tmp_path / "tailorbird.toml") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind = 'carousel'", ["'carousel'", "$.kind"]),
        ("[[variants]]\nid = 'a'\ncap = 2.0", ["<= 1.0", "$.variants[0].cap"]),
        ("stickySecond = 3", ["unknown field `stickySecond`"]),
        ("[policy]\ntype = 'magic'", ["'magic'", "$.policy.type"]),
        ("key = 'has spaces'", ["$.key"]),
        ("= 3", ["is not TOML"]),
    ],
)
def test_a_wrong_placement_names_file_key_and_rule(tmp_path, text, words):
    folder = tmp_path / "placements"
    folder.mkdir()
    (folder / "hero.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_placements(tmp_path / "tailorbird.toml")
    for word in ["hero.toml", *words]:
        assert word in str(caught.value)


# --- keys ---------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_only_hashes_of_two_are_kept(tmp_path):
    keys, made = load_keys(tmp_path)
    assert {name: key[:3] for name, key in made.items()} == {"write": "wk_", "server": "sk_", "admin": "ak_"}
    assert keys.write == made["write"]
    assert keys.server_hash == key_hash(keys.secret, made["server"])
    text = (tmp_path / "keys.json").read_text()
    assert made["server"] not in text
    assert made["admin"] not in text
    assert load_keys(tmp_path) == (keys, {})


def test_keys_are_readable_by_their_owner_only(tmp_path):
    load_keys(tmp_path)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_two_installations_have_nothing_in_common(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    (one, made), (other, remade) = (load_keys(folder) for folder in folders)
    assert one.secret != other.secret
    assert not set(made.values()) & set(remade.values())


def test_keys_of_the_environment_win_and_are_not_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILORBIRD_WRITE_KEY", "wk_given")
    monkeypatch.setenv("TAILORBIRD_ADMIN_KEY", "ak_given")
    keys, made = load_keys(tmp_path)
    assert set(made) == {"server"}
    assert keys.write == "wk_given"
    assert keys.admin_hash == key_hash(keys.secret, "ak_given")
    monkeypatch.setenv("TAILORBIRD_ADMIN_KEY", "ak_later")
    later, _ = load_keys(tmp_path)
    assert later.admin_hash == key_hash(keys.secret, "ak_later")
    assert later.server_hash == keys.server_hash


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"secret": 7}', b"\xff"])
def test_a_broken_file_of_keys_is_named(tmp_path, content):
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        load_keys(tmp_path)
