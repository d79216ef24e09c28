"""Write text of two languages from the message catalogues of this machine, to localize a small model with.

    python docs/examples/localize/prepare.py el data

The programs of a Debian machine bring their messages in many languages (/usr/share/locale/*/LC_MESSAGES/*.mo). The
English ones become data/old.txt and their translations, here Greek, data/new.txt: one message a line.
"""

import gettext
import sys
from collections.abc import Iterator
from pathlib import Path

CATALOGUES = Path("/usr/share/locale")


def messages(language: str) -> Iterator[tuple[str, str]]:
    """Yield each message of the programs here in English and in a language."""
    for path in sorted((CATALOGUES / language / "LC_MESSAGES").glob("*.mo")):
        try:
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog
        except (OSError, UnicodeDecodeError):
            continue  # a catalogue in another encoding
        for key, translation in catalogue.items():
            english = key if isinstance(key, str) else key[0]
            if english and translation and translation != english:
                yield " ".join(english.split()), " ".join(translation.split())


def main(language: str, folder: Path) -> None:
    """Write both files.

    Args:
        language: Name of a folder of message catalogues, such as el.
        folder: Where the files go.
    """
    pairs = dict(messages(language))
    if not pairs:
        sys.exit(f"error: {CATALOGUES / language}: no messages here; other languages are the other folders there")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "old.txt").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    (folder / "new.txt").write_text("\n".join(pairs.values()) + "\n", encoding="utf-8")
    print(f"{len(pairs):,} messages in {folder / 'old.txt'} and {folder / 'new.txt'}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/examples/localize/prepare.py LANGUAGE FOLDER")
    main(sys.argv[1], Path(sys.argv[2]))
