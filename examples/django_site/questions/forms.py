"""What visitors may send: questions, one a line."""

from django import forms

MAX_AT_ONCE = 8
MAX_IN_LIST = 500
MAX_CHARACTERS = 500
MAX_FILE_BYTES = 256 * 1024


def questions_in(text, most):
    """Return the lines of a text that are not empty.

    Raises:
        ValidationError: there are none, more than ``most``, or one is too long.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise forms.ValidationError("Write at least one question.")
    if len(lines) > most:
        raise forms.ValidationError(f"These are {len(lines)} questions; up to {most} can be asked here.")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_CHARACTERS:
            raise forms.ValidationError(
                f"Question {number} has {len(line)} characters; shorten it to {MAX_CHARACTERS} or fewer."
            )
    return lines


class AskForm(forms.Form):
    """A few questions, to be answered while the visitor waits."""

    questions = forms.CharField(
        label="Questions, one on each line",
        help_text=f"Up to {MAX_AT_ONCE}. Ctrl + Enter asks.",
        error_messages={"required": "Write at least one question."},
        widget=forms.Textarea(attrs={"rows": 4, "autofocus": True, "data-most": MAX_AT_ONCE, "spellcheck": "true"}),
    )

    def clean_questions(self):
        """Return them one by one."""
        return questions_in(self.cleaned_data["questions"], MAX_AT_ONCE)


class ListForm(forms.Form):
    """A list of questions, written or in a file."""

    questions = forms.CharField(
        label="Questions, one on each line",
        required=False,
        widget=forms.Textarea(attrs={"rows": 8, "data-most": MAX_IN_LIST}),
    )
    file = forms.FileField(
        label="Or a text file",
        help_text=f"UTF-8, up to {MAX_IN_LIST} lines and {MAX_FILE_BYTES // 1024} KB.",
        required=False,
        widget=forms.FileInput(attrs={"accept": ".txt,text/plain"}),
    )

    def clean_file(self):
        """Return the text in the file."""
        file = self.cleaned_data["file"]
        if file is None:
            return ""
        if file.size > MAX_FILE_BYTES:
            raise forms.ValidationError(f"The file is larger than {MAX_FILE_BYTES // 1024} KB; split it.")
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise forms.ValidationError("The file is no text in UTF-8; save it as one.")
        return text

    def clean(self):
        """Put both together."""
        cleaned = super().clean()
        if not self.errors:
            text = f"{cleaned['questions']}\n{cleaned['file']}"
            cleaned["lines"] = questions_in(text, MAX_IN_LIST)
        return cleaned
