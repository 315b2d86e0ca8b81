"""The course's website: `make site` builds it."""
