# Runs lessons of a folder in place of the course's; copies go to out/:
# other_lessons.py FOLDER [LESSON ...]
import sys
from pathlib import Path

from tools import run_lessons

folder, *lessons = sys.argv[1:]
run_lessons.ROOT = Path(folder)
sys.argv[1:] = ["--out", f"{folder}/out", *lessons]
run_lessons.main()
