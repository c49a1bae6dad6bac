// The frame of the page: tabs, language, and one line for what went wrong.
import {ask} from "./ask.js";
import * as attention from "./attention.js";
import * as mae from "./mae.js";
import * as positions from "./positions.js";
import * as step from "./step.js";

const tabs = {attention, mae, positions, step};
const params = new URLSearchParams(location.search);
let language = params.get("lang") || (navigator.language.startsWith("zh") ? "zh" : "en");
let current = location.hash.slice(1) in tabs ? location.hash.slice(1) : "attention";

function open(name) {
  current = name;
  location.hash = name;
  draw();
}

function draw() {
  document.documentElement.lang = language;
  const list = document.getElementById("tabs"), panels = document.getElementById("panels");
  list.replaceChildren(...Object.entries(tabs).map(([name, tab]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `tab-${name}`;
    button.textContent = tab.texts[language].title;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-selected", name === current);
    button.addEventListener("click", () => open(name));
    return button;
  }));
  const panel = document.createElement("section");
  panel.id = `panel-${current}`;
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", `tab-${current}`);
  panels.replaceChildren(panel);
  const status = document.getElementById("status");
  status.textContent = "";
  const asked = async (name, question) => {
    try {
      const answer = await ask(name, question);
      status.textContent = "";
      return answer;
    } catch (error) {
      status.textContent = error.message;
      throw error;
    }
  };
  tabs[current].show(panel, (key) => tabs[current].texts[language][key], asked);
  const button = document.getElementById("language");
  button.textContent = language === "en" ? "中文" : "English";
}

document.getElementById("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  draw();
});
window.addEventListener("hashchange", () => {
  if (location.hash.slice(1) in tabs && location.hash.slice(1) !== current) open(location.hash.slice(1));
});
draw();
