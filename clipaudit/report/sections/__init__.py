"""The sections of the page: a file here and a template each, and a row in the list."""

from __future__ import annotations

from clipaudit.report.sections.base import Material, Section
from clipaudit.report.sections.classes import classes
from clipaudit.report.sections.configuration import configuration
from clipaudit.report.sections.confusion import confusion
from clipaudit.report.sections.copies import copies
from clipaudit.report.sections.gallery import gallery
from clipaudit.report.sections.overview import overview
from clipaudit.report.sections.quality import quality
from clipaudit.report.sections.truth import truth
from clipaudit.report.sections.unreadable import unreadable

__all__ = ["SECTIONS", "Material", "Section"]

# In the order of the page and of its navigation.
SECTIONS = (
    Section("overview", "Overview", overview),
    Section("gallery", "Images", gallery),
    Section("classes", "Classes", classes),
    Section("copies", "Copies", copies),
    Section("confusion", "Confusion", confusion),
    Section("truth", "Truth", truth),
    Section("quality", "Quality", quality),
    Section("unreadable", "Unreadable", unreadable),
    Section("configuration", "Configuration", configuration),
)
