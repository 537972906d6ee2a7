"""Tokenizers and chat templates as data that the native core reads: `text.bin`."""

from forerun.compiler.text.bundle_text import TEXT_NAME, TextReport, write_text
from forerun.compiler.text.text_file import Language, text_file

__all__ = ["TEXT_NAME", "Language", "TextReport", "text_file", "write_text"]
