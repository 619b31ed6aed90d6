"""Stages that decide which documents stay, and edit the text of those that do."""
