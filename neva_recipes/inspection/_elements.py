"""HTML as a tree of elements, so that no text can be taken for markup."""

from xml.etree import ElementTree

__all__ = ["Element", "document", "element"]

Element = ElementTree.Element


def element(tag: str, *children: Element | str, **attributes: str) -> Element:
    """Return an element; `class_` stands for the attribute `class`.

    Args:
        tag: Name of the element.
        *children: Elements and text, in order.
        **attributes: Its attributes.
    """
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return made


def document(root: Element) -> str:
    """Return a whole HTML page in ASCII: other characters are written as references, which any encoding can carry."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="us-ascii", method="html").decode("ascii") + "\n"
