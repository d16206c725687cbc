"""Character classes from one pinned version of Unicode, for the splitters and for tests.

The version is the one that the regular expressions of ``tiktoken`` and ``tokenizers`` use; the
interpreter's own ``unicodedata`` is never asked, so that ids do not depend on it.
"""

from rustllm._core.unicode cimport RL_UNICODE_VERSION, category_of, class_of

UNICODE_VERSION = RL_UNICODE_VERSION.decode("ascii")
CATEGORIES = (
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co",
)


def category(Py_UCS4 char):
    """General category of `char`, such as ``"Lu"``.

    >>> category("é")
    'Ll'
    """
    return CATEGORIES[category_of(char)]


def char_class(Py_UCS4 char):
    """Number of the splitter class of `char`: a ``CharClass``.

    >>> char_class("7") == CharClass.NUMBER
    True
    """
    return class_of(char)
