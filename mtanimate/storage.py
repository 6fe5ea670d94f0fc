"""stub"""

from typing import Any


def is_url(text: str) -> bool:
    return "://" in text


def shown(url: str) -> str:
    return url


def exists(url: str) -> bool:
    raise NotImplementedError


def name_of(url: str) -> str:
    raise NotImplementedError


def fetch(*a: Any) -> Any:
    raise NotImplementedError


def upload(*a: Any) -> Any:
    raise NotImplementedError
