"""A few sentences of our own, from which the golden tokenizers are trained and tested."""

CORPUS = """\
Mia has 12 pencils and buys 7 more. How many pencils does Mia have now?
Mia starts with 12 pencils. She buys 7 more, so she has 12 + 7 = 19 pencils.
#### 19
A baker makes 8 trays of 15 rolls and sells 47 rolls. How many rolls are left?
The baker makes 8 * 15 = 120 rolls. After selling 47 there are 120 - 47 = 73 rolls left.
#### 73
Tom reads 14 pages on Monday, twice as many on Tuesday and 9 on Wednesday. How many pages in total?
On Tuesday Tom reads 2 * 14 = 28 pages. In total he reads 14 + 28 + 9 = 51 pages.
#### 51
A box holds 24 apples. Half of the apples are green and the others are red. How many are red?
Half of 24 is 24 / 2 = 12, so 12 apples are red.
#### 12
"""

# Short strings that reach every corner of pre-tokenization and byte-level coding.
STRINGS = [
    "",
    " ",
    "\n",
    "hello world",
    "Hello,  world!\n\n  indented\ttab",
    "It's John's; they're, we've, I'm, he'll, she'd, IT'S",
    "12 + 7 = 19",
    "3.14159, 1,000,000 and 1e-5",
    "x=1;y=22;z=333",
    "#### 18",
    "Na\u00efve caf\u00e9 \u2014 \u201cquotes\u201d\u2026",
    "Cafe\u0301 (decomposed)",
    "\u6570\u5b66\u3067\u8a08\u7b97\u3057\u307e\u3059\u3002 12\u500b",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
    "emoji \U0001f600\U0001f44d\U0001f3fd \U0001f469\u200d\U0001f4bb end",
    "\u0664\u0665 \u00bd \u00b2 \u2167",
    "nbsp\u00a0here\u2003em\u3000ideographic",
    "trailing spaces   ",
    "   leading spaces",
    "line one\r\nline two\r\n",
    "tabs\t\t\tand\x0bvertical\x0c",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a<|endoftext|>b",
    "<|im_start|",
    "snake_case CamelCase kebab-case path/to/file.txt",
    "$18.50 (50%) \u20ac5 \u00a33",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!!!???...,,,;;;",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u200bzero\u200bwidth \u2060 \ufeffbom",
    "mongolian\u180eseparator next\u0085line \u2028 sep",
    "a <tool_call>{\"x\": 1}</tool_call> step by step",
    "Z\u0307\u0323 and \u1e0b\u0323 reorder; \u212b and \u2126",
    "\ufb01 ligature, \u017ftrange '\u017f 'S 'LL",
    "mixed123digits456in789words",
    "Let's think step by step and output the final answer after \"####\".",
]
