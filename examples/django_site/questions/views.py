"""The pages: questions whose answers are shown while they are written, and lists with their progress and table."""

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from chatpool.batch.output_formats import CSV, Column, Spool, write_table
from chatpool.contrib.django import StreamingChatResponse
from chatpool.local import MODEL as EMBEDDED_MODEL

from . import examples, runs
from .forms import AskForm, ListForm
from .models import Question, QuestionList

HEARTBEAT_SECONDS = 1  # a visitor who has left is noticed within twice this
LISTS_SHOWN = 10
LATEST_SHOWN = 6
NOTES = {
    "practice": "a practice server that makes them up",
    EMBEDDED_MODEL: "a very small model on this machine that is often wrong",
}
COLUMNS = ("question", "answer", "error", "tokens", "seconds")


def model(request):
    """Name the model in every page."""
    return {"model": settings.MODEL, "note": NOTES.get(settings.MODEL)}


@require_GET
def home(request):
    """Show the form for a few questions; the script of the page sends it to :func:`answers`."""
    return render(request, "questions/ask.html", {"form": AskForm(), "examples": examples.QUESTIONS})


@require_POST
def answers(request):
    """Answer questions side by side, as server-sent events."""
    form = AskForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"message": form.errors["questions"][0]}, status=400)
    questions = form.cleaned_data["questions"]
    return StreamingChatResponse(questions, heartbeat=HEARTBEAT_SECONDS, on_finish=runs.log_failure)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def lists(request):
    """Show the visitor's lists, and take a new one."""
    form = ListForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        made = QuestionList.objects.create()
        lines = enumerate(form.cleaned_data["lines"], 1)
        Question.objects.bulk_create([Question(list=made, number=number, text=line) for number, line in lines])
        runs.go_on(made.pk)
        request.session["lists"] = [str(made.pk), *request.session.get("lists", [])][:LISTS_SHOWN]
        return redirect("list", made.pk)
    own = QuestionList.objects.filter(pk__in=request.session.get("lists", [])).order_by("-created")
    shown = [(one, one.figures()) for one in own]
    return render(request, "questions/lists.html", {"form": form, "lists": shown, "examples": examples.LIST})


@never_cache
@require_GET
def one_list(request, pk, template="questions/list.html"):
    """Show how far a list is, and its latest answers; in the end all of them."""
    found = get_object_or_404(QuestionList, pk=pk)
    if found.ended is None:
        runs.go_on(pk)
    questions = found.questions.all()
    if found.ended is None:
        questions = questions.exclude(state=Question.State.WAITING).order_by("-ended")[:LATEST_SHOWN]
    context = {"list": found, "figures": found.figures(), "causes": found.causes(), "questions": questions}
    return render(request, template, context)


@require_GET
def table(request, pk):
    """Return a list's questions and answers as CSV, in which no text is a formula to a spreadsheet."""
    found = get_object_or_404(QuestionList, pk=pk)
    spool = Spool(groups=1)
    for one in found.questions.all():
        seconds = None if one.seconds is None else round(one.seconds, 2)
        spool.add(dict(zip(COLUMNS, (one.text, one.answer, one.error, one.tokens, seconds))))
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="answers.csv"'
    write_table(response, "answers.csv", CSV, spool, [Column(name, 0, name) for name in COLUMNS])
    spool.close()
    return response
