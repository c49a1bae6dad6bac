// The frame of the page: tabs, language, one line for what went wrong, and one that says where to read the code.
import {ask} from "./ask.js";
import * as attention from "./attention.js";
import * as mae from "./mae.js";
import * as positions from "./positions.js";
import * as step from "./step.js";

const tabs = {attention, mae, positions, step};
const names = Object.keys(tabs);
const words = {
  en: {other: "中文", code: "Read the code:", loading: "Loading Python and NumPy, about 12 MB…",
    unreachable: "The server does not answer: is `python -m tinymae play` still running?"},
  zh: {other: "English", code: "阅读代码：", loading: "正在加载 Python 和 NumPy，约 12 MB……",
    unreachable: "服务器没有响应：`python -m tinymae play` 还在运行吗？"},
};
const [list, panels, status, code, button] = ["tabs", "panels", "status", "code", "language"]
  .map((id) => document.getElementById(id));
const address = new URL(location.href);
let language = [address.searchParams.get("lang"), remembered(), navigator.language.startsWith("zh") ? "zh" : "en"]
  .find((name) => name in words);
let current = named(location.hash) ?? names[0];
let loading = Boolean(window.askPyodide);                       // until the first answer

function named(hash) {
  return names.find((name) => `#${name}` === hash);
}

function remembered() {
  try { return localStorage.getItem("language"); } catch { return null; }       // a browser may forbid it
}

function speak(name) {
  language = name;
  try { localStorage.setItem("language", name); } catch { /* then it is not remembered */ }
  if (address.searchParams.has("lang")) {                       // or the next reload would go back to it
    address.searchParams.set("lang", name);
    history.replaceState(null, "", address.search + location.hash);
  }
  draw();
}

function open(name, focus) {
  current = name;
  if (named(location.hash) !== name) history.replaceState(null, "", `#${name}`);
  draw();
  if (focus) document.getElementById(`tab-${name}`).focus();
}

// What belongs to the language and to the open tab. The elements and their listeners are made once, below.
function draw() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  button.textContent = words[language].other;
  button.lang = language === "zh" ? "en" : "zh-Hans";
  for (const name of names) {
    const tab = document.getElementById(`tab-${name}`);
    tab.textContent = say(name, "title");
    tab.setAttribute("aria-selected", name === current);
    tab.tabIndex = name === current ? 0 : -1;                   // Tab goes to the open one, arrow keys to the others
    if (name === current) tab.setAttribute("aria-controls", `panel-${name}`);
    else tab.removeAttribute("aria-controls");                  // its panel is not there
  }
  const files = say(current, "code");                           // what a tab's functions call, where it lists that
  code.textContent = [words[language].code, `tinymae/play/${current}_tab.py`, ...(Array.isArray(files) ? files : [])].join(" ");
  const panel = document.createElement("section");
  panel.id = `panel-${current}`;
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", `tab-${current}`);
  panels.replaceChildren(panel);
  status.textContent = loading ? words[language].loading : "";
  const name = current;
  tabs[name].show(panel, (key) => say(name, key), asker(panel));
}

function say(name, key) {
  return tabs[name].texts[language][key] ?? tabs[name].texts.en[key];
}

// "ask" for one panel: it shows the error of the newest question of each name, as long as the panel is there.
function asker(panel) {
  const newest = new Map(), wrong = new Map();
  return async (name, question) => {
    const mine = Symbol(name);
    newest.set(name, mine);
    let error = null;
    try {
      return await ask(name, question, language);
    } catch (caught) {
      error = caught;
      error.shown = true;
      throw error;
    } finally {
      loading = false;
      if (panel.isConnected && newest.get(name) === mine) {
        if (error) wrong.set(name, words[language][error.message] ?? error.message);
        else wrong.delete(name);
        status.textContent = [...wrong.values()].join(" ");
      }
    }
  };
}

for (const name of names) {
  const tab = document.createElement("button");
  tab.type = "button";
  tab.id = `tab-${name}`;
  tab.setAttribute("role", "tab");
  tab.addEventListener("click", () => open(name, true));
  list.append(tab);
}
list.addEventListener("keydown", (event) => {
  const here = names.indexOf(current), last = names.length - 1;
  const next = {ArrowRight: here < last ? here + 1 : 0, ArrowLeft: here ? here - 1 : last, Home: 0, End: last}[event.key];
  if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  open(names[next], true);
});
button.addEventListener("click", () => speak(language === "en" ? "zh" : "en"));
window.addEventListener("hashchange", () => named(location.hash) && open(named(location.hash)));
window.addEventListener("unhandledrejection", (event) => event.reason?.shown && event.preventDefault());
draw();
