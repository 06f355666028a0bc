"""Articles, and what is said of them."""

from django.db import models


class Author(models.Model):
    name = models.TextField()


class Article(models.Model):
    title = models.TextField()
    author = models.ForeignKey(Author, models.CASCADE, null=True)
    published = models.DateField(null=True)
    summary = models.TextField(default="")
    words = models.IntegerField(null=True)

    class Meta:
        ordering = ["-title"]


class Tag(models.Model):
    code = models.UUIDField(primary_key=True)
    text = models.TextField()
    answer = models.JSONField(null=True)
