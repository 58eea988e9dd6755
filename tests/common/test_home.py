"""Every dataset has its own home, and commands find the one that was used last."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.home import Home, HomeError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_two_folders_never_share_a_home(tmp_path: Path) -> None:
    folders = ["teashop/data", "bookshop/data", "runs", "cache", "movielens", "../data", "my shöp", "my-shöp"]
    homes = [Home.of_data("movielens")]
    homes += [Home.of_data("custom", str(tmp_path / "here" / name)) for name in folders]
    for places in ([home.name for home in homes], [home.registry for home in homes],
                   [home.server("production") for home in homes]):  # fmt: skip
        assert len(set(places)) == len(homes)
    assert homes[1].name.startswith("data-")
    assert homes[1].registry == f".car/{homes[1].name}/registry"


def test_a_folder_has_one_home_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "here" / "shop").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here" / "shop")
    names = ["shop", "./shop/", "../here/shop", str(tmp_path / "here" / "shop"), str(tmp_path / "link")]
    assert len({Home.of_data("custom", name).name for name in names}) == 1


def test_data_below_the_current_folder_keeps_its_home_when_both_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Home.of_data("custom", "shop")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert Home.of_data("custom", "shop") == before


@pytest.mark.parametrize("name", ["a/b\n", "#=:\\", "...", "💐", "x" * 200, "it's", "-rf", " "])
def test_any_folder_gives_a_short_plain_name(name: str) -> None:
    home = Home.of_data("custom", f"/data/{name}")
    assert not set(home.name) & set(" /\\#='\n:")
    assert home.name[0] not in ".-"
    assert len(home.name) < 60


def test_the_last_runs_home_is_used_until_another_is_named() -> None:
    assert Home.load() == Home.of_data("movielens")
    assert not Home.load().is_recorded
    tea, books = Home.of_data("custom", "tea"), Home.of_data("custom", "books", registry="gs://shop/car")
    tea.select()
    books.select()
    assert Home.load() == books
    assert Home.load(tea.name) == tea
    assert Home.all([]) == sorted([tea, books], key=lambda home: home.name)


def test_another_registry_is_another_home_and_the_same_one_is_not(tmp_path: Path) -> None:
    tea = Home.of_data("custom", "tea")
    assert Home.of_data("custom", "tea", tea.registry) == tea
    others = [Home.of_data("custom", "tea", place) for place in ("try", str(tmp_path / "try"), "gs://b/car")]
    assert len({home.name for home in [tea, *others]}) == 4
    assert Home.of_data("custom", "tea", str(tmp_path / "here" / "try")).name == others[0].name


def test_every_channel_has_a_server_of_its_own_and_a_named_place_is_remembered() -> None:
    home = Home.of_data("custom", "tea")
    assert home.server("production") != home.server("trial")
    home.with_server("trial", "elsewhere").select()
    again = Home.of_data("custom", "tea")
    assert (again.server("trial"), again.server("production")) == (
        Path("elsewhere"),
        home.server("production"),
    )
    home.server("production").mkdir(parents=True)
    assert again.channels() == ["production", "trial"]


def test_a_home_that_is_not_there_or_damaged_is_named() -> None:
    with pytest.raises(HomeError, match=r"no home 'tea' in .*; there are: none yet; `car run` makes one"):
        Home.load("tea")
    home = Home.of_data("custom", "tea")
    home.select()
    with pytest.raises(HomeError, match=f"no home '../../etc' .* there are: {home.name}"):
        Home.load("../../etc")
    Path(".car", home.name, "home.json").write_text("{}")
    with pytest.raises(HomeError, match=r"home\.json is damaged; run the pipeline on that dataset again"):
        Home.load()


@pytest.mark.parametrize("content", ["{}", "", "\ufeff", '{"name": 1}'])
def test_a_damaged_home_hides_no_other_and_none_of_its_servers(content: str) -> None:
    tea, books = Home.of_data("custom", "tea"), Home.of_data("custom", "books")
    for home in (tea, books):
        home.server("production").mkdir(parents=True)
        home.select()
    books.with_server("trial", "elsewhere").select()
    Path(".car", tea.name, "home.json").write_text(content)
    problems: list[str] = []
    servers = Home.all_servers(problems)
    assert set(servers) == {tea.server("production"), books.server("production"), Path("elsewhere")}
    assert [tea.name in problem and "damaged" in problem for problem in problems] == [True]
    with pytest.raises(HomeError, match=f"there are: {books.name}, {tea.name}"):
        Home.load("coffee")
    assert Home.of_data("custom", "tea") == tea  # the next run writes it anew
