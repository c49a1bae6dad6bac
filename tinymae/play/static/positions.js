// The tab "positions".
export const texts = {en: {title: "positions"}, zh: {title: "positions"}};

// Build the tab inside "root"; "say" translates a key of texts, "ask(name, arguments)" resolves to the answer of tinymae.
export function show(root, say, ask) {
  root.textContent = say("title");
}
