// Opened as a file, a page may load no modules, so no widget can start: say so. This is no module.

if (location.protocol === "file:")
  for (const place of document.querySelectorAll(".live")) {
    const note = document.createElement("p");
    note.textContent =
      "A browser starts this only from a web server. In the folder of these pages, run " +
      "python3 -m http.server 8000, then open http://localhost:8000.";
    note.setAttribute("role", "alert");
    place.append(note);
  }
