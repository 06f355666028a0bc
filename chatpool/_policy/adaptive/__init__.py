"""Limits that no server reports, learned from its rejections."""
