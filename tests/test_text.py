"""support/text.py: foreign text cannot change what a terminal shows."""

from support.text import printable, visible


def test_control_characters_are_shown_as_escapes():
    # Clears the screen, rings the bell, reverses the direction of writing.
    assert visible("a\x1b[2Jb\a\u202ec") == r"a\x1b[2Jb\x07\u202ec"
    assert visible("two\nlines\tand\rmore") == r"two\nlines\tand\rmore"


def test_letters_of_every_script_stay():
    assert visible("naïve café 手写 цифры") == "naïve café 手写 цифры"


def test_long_text_is_shortened_in_the_middle():
    text = "a" * 150 + "b" * 150
    assert printable(text) == "a" * 90 + "..." + "b" * 100
    assert visible(text) == text and printable(text[:200]) == text[:200]
