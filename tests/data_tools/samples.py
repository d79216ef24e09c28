"""Samples of data files."""


def sample(number=0, question="What?", answer="This.", **fields):
    """Return a sample without an image."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": f"{number}", "conversations": turns, **fields}
