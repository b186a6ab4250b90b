"""Command lines to words as docker compose v2 splits them: quotes and backslashes, no variables, no globs."""

from __future__ import annotations


def split(line: str) -> list[str] | None:
    """The words of `line` up to an unquoted `;`, `&`, `|`, `<` or `>`; None when it cannot be split."""
    words: list[str] = []
    word = ""
    begun = escaped = False
    quote = ""
    for char in line:
        if escaped:
            word += char
            begun, escaped = True, False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
                if char == "`":
                    word += char
            else:
                word += char
        elif char in "'\"`":
            quote, begun = char, True
            if char == "`":
                word += char
        elif char in " \t\r\n":
            if begun:
                words.append(word)
            word, begun = "", False
        elif char in ";&|<>":
            if char == ">" and word[:1].isdigit():
                begun = False  # `2>` is a redirection, and no word
            break
        elif (char == "(" and not word.endswith("$")) or (char == ")" and "$(" not in word):
            return None
        else:
            word += char
            begun = True
    if quote or escaped:
        return None
    return [*words, word] if begun else words
