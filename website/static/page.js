// What every page does beside showing its text.

// --- A choice in a drawer closes it: it may lead to a place on the same page ---

for (const drawer of document.querySelectorAll("dialog[id$='sidebar-modal']"))
  drawer.addEventListener("click", ({ target }) => {
    if (target.closest("a")) drawer.close();
  });

// --- A formula that is wider than the page can be scrolled with the keyboard ---

const formulas = document.querySelectorAll("div.formula");
const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries)
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
});
for (const formula of formulas) watcher.observe(formula);
