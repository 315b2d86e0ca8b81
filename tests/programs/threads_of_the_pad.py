"""Import the pad; print how many threads run, and whether its style sheet was found."""

import threading

from course.widgets.pad import DigitPad

threads = threading.active_count()
print(f"{threads} thread, and a style: {'.course-widget {' in str(DigitPad._css)}")
