"""Addresses of the pages."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("answers", views.answers, name="answers"),
    path("lists/", views.lists, name="lists"),
    path("lists/<uuid:pk>/", views.one_list, name="list"),
    path("lists/<uuid:pk>/progress", views.one_list, {"template": "questions/progress.html"}, name="progress"),
    path("lists/<uuid:pk>/answers.csv", views.table, name="table"),
]
