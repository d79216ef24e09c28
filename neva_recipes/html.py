"""HTML as a tree of elements, so that text is never taken for markup."""

from xml.etree import ElementTree

__all__ = ["Element", "document", "element"]

Element = ElementTree.Element


def element(tag: str, *children: Element | str, **attributes: str) -> Element:
    """Return an element; `class_` means the attribute `class`.

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
    """Return a whole HTML page in ASCII; other characters become references, which any encoding can carry."""
    html: bytes = ElementTree.tostring(root, encoding="us-ascii", method="html")
    return f"<!DOCTYPE html>\n{html.decode('ascii')}\n"
