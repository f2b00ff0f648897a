"use strict";

// Without this script the page shows everything; with it, tables sort and collections fold.

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return column === 0 ? cell.textContent.trim() : "order" in cell.dataset ? Number(cell.dataset.order) : null;
  };
  const sort = (column) => {
    const falling = heads[column].getAttribute("aria-sort") !== (column === 0 ? "ascending" : "descending");
    const down = column === 0 ? !falling : falling;
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // rows without a value stay last
      const rising = column === 0 ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
      return down ? -rising : rising;
    });
    body.append(...rows.map(([, row]) => row));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
}

for (const section of document.querySelectorAll(".collection")) {
  const body = section.querySelector(".body");
  const button = document.createElement("button");
  const show = (open) => {
    body.hidden = !open;
    button.textContent = open ? "hide" : "show";
    button.setAttribute("aria-expanded", String(open));
  };
  button.type = "button";
  button.className = "fold";
  button.setAttribute("aria-label", `details of ${section.querySelector("h2").textContent}`);
  button.addEventListener("click", () => show(body.hidden));
  show(true);
  section.querySelector("h2").append(button);
}
