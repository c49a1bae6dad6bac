// The page that `plot.attention(..., html=FILE)` writes: attention_map.js stands in front of this file, the weights in #weights.
// A token is selected with the pointer, a tap or the keyboard; lines, heatmap and the table of all heads follow.
const {weights, queries, keys, largest} = JSON.parse(document.getElementById("weights").textContent);     // weights: (H, Tq, Tk)
const texts = {
  en: {
    ...mapTexts.en, title: "Attention", other: "中文", keys: "Keys: attended to", queries: "Queries: they attend",
    eachQuery: "{token} attends to, in each head", eachKey: "{token} receives from, in each head",
    readEach: "A row is one head. Click a row to see the lines of this head.",
    cellHead: "{query}, {key}",
  },
  zh: {
    ...mapTexts.zh, title: "注意力", other: "English", keys: "键：被关注的词元", queries: "查询：发出关注的词元",
    eachQuery: "各个头中 {token} 关注的词元", eachKey: "各个头中关注 {token} 的词元",
    readEach: "每一行是一个头。点击一行，上方就画出这个头的线。",
    cellHead: "{query}，{key}",
  },
};
const page = document.getElementById("page"), single = weights.length === 1;
const sides = {key: {tokens: keys, there: keys.length}, query: {tokens: queries, there: queries.length}};
const state = {language: navigator.language.startsWith("zh") ? "zh" : "en", head: single ? 0 : null,       // null: the mean
  selected: {side: "query", index: 0}};
let lines = null, matrix = null, each = null;                   // what "draw" has made; "each" is where the table of heads stands

const say = (key, values = {}) => fill(texts[state.language][key], values);
const mean = weights[0].map((row, q) => row.map((_, k) => weights.reduce((sum, head) => sum + head[q][k], 0) / weights.length));
const chosen = () => (state.head === null ? mean : weights[state.head]);
const headName = (head) => (head === null ? say("mean") : say("headNumber", {n: head}));

function draw() {
  document.documentElement.lang = state.language === "zh" ? "zh-Hans" : "en";
  document.title = say("title");
  const language = button(say("other"), () => {
    state.language = state.language === "zh" ? "en" : "zh";
    draw();
    page.querySelector(".page-language").focus();
  }, {class: "page-language", lang: state.language === "zh" ? "en" : "zh-Hans"});
  const heads = select([["mean", say("mean")], ...weights.map((_, head) => [head, head])], state.head ?? "mean", (value) => {
    state.head = value === "mean" ? null : Number(value);
    drawHead();
  });
  lines = tokenLines(sides, {
    say, names: {key: say("keys"), query: say("queries")}, reached: pick, clicked: pick, largest,
  });
  matrix = node("div");
  each = node("div", {hidden: single});
  page.replaceChildren(node("div", {class: "attn-bar page-head"}, node("h1", {text: say("title")}), language),
    node("div", {class: "attn-bar", hidden: single}, labelled(say("head"), heads)), lines.node,
    node("div", {class: "attn-columns"}, matrix, each));
  drawHead();
}

function pick(selected) {
  state.selected = selected;
  lines.draw(sides, chosen(), selected);
  matrix.outline(selected);
  drawEach();
}

// What belongs to the chosen head.
function drawHead() {
  const heads = page.querySelector("select");
  if (heads) heads.value = state.head ?? "mean";
  const made = heatmap(sides, {say, numbers: chosen(), largest, name: say("matrix", {what: headName(state.head)})});
  matrix.replaceChildren(made.node, reading(say("readWeights")));
  matrix.outline = made.outline;
  pick(state.selected);
}

// The weights of the selected token in each head.
function drawEach() {
  if (single) return;
  const {side, index} = state.selected, other = side === "query" ? sides.key : sides.query;
  const rows = [null, ...weights.keys()];
  const numbers = rows.map((head) => {
    const map = head === null ? mean : weights[head];
    return side === "query" ? map[index] : map.map((row) => row[index]);
  });
  const names = rows.map(headName), token = sides[side].tokens[index];
  const made = heatmap({key: other, query: {tokens: names, there: names.length}}, {
    say: (key, values) => say(key === "cell" ? "cellHead" : key, values), numbers, largest,
    name: say(side === "query" ? "eachQuery" : "eachKey", {token}),
  });
  made.outline({side: "query", index: rows.indexOf(state.head)});
  made.node.addEventListener("click", ({target}) => {
    if (!target.dataset.q) return;
    state.head = rows[target.dataset.q];
    drawHead();
  });
  each.replaceChildren(made.node, reading(say("readEach")));
}

draw();
