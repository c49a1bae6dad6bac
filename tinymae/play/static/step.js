// The tab "one step": every op of a tiny encoder layer with its numbers, forward beside backward.
import {element, latest} from "./positions.js";

export const texts = {
  en: {
    title: "One step",
    intro: "One pre-norm encoder layer with B = 1, T = 3, D = 4, H = 2, F = 6. Read the left column downwards and the right one " +
      "upwards. Point at a box or move with the arrow keys: its formula and its place in the code appear.",
    seed: "Random seed", number: "Number to change", index: "Index", value: "Value", reset: "As before",
    changeHelp: "A click on a number of x or of a parameter chooses it.",
    bug: "Break one backward", check: "Run the gradient check", checking: "checking…", code: "Code",
    forward: "forward", backward: "backward", inputs: "In", outputs: "Out", broken: "broken",
    paths: (count) => `one of ${count} paths, which add up`, total: (count) => `the sum of ${count} paths`,
    was: (before, now) => `was ${before}, is ${now}`,
    nothing: "Nothing is changed.", touched: (forward, backward) => `Changed: ${forward} boxes of the forward, ${backward} of the backward.`,
    loss: (now) => `Loss L = ${now}`,
    predicted: (before, slope, predicted) => `before: ${before}; the gradient ${slope} predicts ${predicted}`,
    right: "All gradients are right.", wrong: (wrong, all) => `${wrong} of ${all} gradients are wrong.`,
    head: ["gradient of", "worst at", "backward", "by differences", "relative error"],
    nodes: {x: "Input", ln1: "Layer norm 1", q: "Queries", k: "Keys", v: "Values", split: "Split into heads", scores: "Scores",
      softmax: "Softmax", mix: "Weighted sum", merge: "Heads side by side", out: "Output projection", add1: "Residual 1",
      ln2: "Layer norm 2", fc1: "Feed forward 1", gelu: "GELU", fc2: "Feed forward 2", add2: "Residual 2", loss: "Loss"},
    bugs: {none: "none: all are right", residual: "residual without its own path", softmax: "softmax without the coupling of a row",
      layernorm: "layer norm multiplies by gamma last", keys: "the keys' path to h₁ is missing",
      bias: "bias gradients averaged, not summed", scale: "scores without 1/√d in the backward", gelu: "GELU with the slope of ReLU"},
  },
  zh: {
    title: "一步训练",
    intro: "一个 pre-norm 编码器层：B = 1，T = 3，D = 4，H = 2，F = 6。左列从上往下读是前向，右列从下往上读是反向。" +
      "把鼠标移到某个框上，或用方向键移动，即可看到它的公式和在代码中的位置。",
    seed: "随机种子", number: "要修改的数", index: "下标", value: "取值", reset: "恢复原值",
    changeHelp: "单击 x 或某个参数里的数即可选中它。",
    bug: "改坏一个反向", check: "运行梯度检查", checking: "检查中…", code: "代码",
    forward: "前向", backward: "反向", inputs: "输入", outputs: "输出", broken: "已改坏",
    paths: (count) => `${count} 条路径之一，各路径相加`, total: (count) => `${count} 条路径之和`,
    was: (before, now) => `原为 ${before}，现为 ${now}`,
    nothing: "没有任何改动。", touched: (forward, backward) => `有变化的框：前向 ${forward} 个，反向 ${backward} 个。`,
    loss: (now) => `损失 L = ${now}`,
    predicted: (before, slope, predicted) => `修改前 ${before}；按梯度 ${slope} 预测为 ${predicted}`,
    right: "所有梯度都正确。", wrong: (wrong, all) => `${all} 个梯度中有 ${wrong} 个不正确。`,
    head: ["梯度对象", "误差最大处", "反向结果", "差分结果", "相对误差"],
    nodes: {x: "输入", ln1: "层归一化 1", q: "查询 Q", k: "键 K", v: "值 V", split: "拆分成多头", scores: "注意力分数", softmax: "Softmax",
      mix: "加权求和", merge: "拼接各头", out: "输出投影", add1: "残差 1", ln2: "层归一化 2", fc1: "前馈第 1 层", gelu: "GELU",
      fc2: "前馈第 2 层", add2: "残差 2", loss: "损失"},
    bugs: {none: "不改：全部正确", residual: "残差少了直通路径", softmax: "softmax 漏掉同一行各元素间的耦合",
      layernorm: "层归一化最后才乘 gamma", keys: "漏掉经过键传回 h₁ 的梯度", bias: "偏置的梯度取了平均而不是求和",
      scale: "分数的反向漏掉 1/√d", gelu: "GELU 用了 ReLU 的斜率"},
  },
};

const chosen = {seed: 0, bug: "none", name: "attn.q.w", index: [0, 1], value: null, box: [0, 0]};      // value null: not changed

// Build the tab inside "root"; "say" translates a key of texts, "ask(name, arguments)" resolves to the answer of tinymae.
export function show(root, say, ask) {
  let answer = null;
  const refresh = latest(async () => {
    const change = chosen.value === null ? null : {name: chosen.name, index: chosen.index, value: chosen.value};
    const step = await ask("step", {seed: chosen.seed, change, bug: chosen.bug});
    return () => { answer = step; draw(); };
  });
  const choose = (name, index) => {
    Object.assign(chosen, {name, index, value: null});
    refresh();
  };
  const report = element("div", {"aria-live": "polite"}), summary = element("p", {role: "status"});
  const renew = () => { report.replaceChildren(); refresh(); };
  const controls = changeControls(say, choose, renew);
  const grid = element("div", {class: "step-boxes"}), detail = element("aside", {class: "step-detail"});
  grid.addEventListener("keydown", (event) => moveFocus(event, grid));
  root.replaceChildren(element("p", {}, say("intro")), controls.root, bugControls(say, ask, report, renew), report, summary,
    element("div", {class: "step-layout"}, grid, detail));

  function draw() {
    if (!root.isConnected) return;
    const rows = withEnds(answer), focused = grid.contains(document.activeElement);
    grid.replaceChildren(...rows.flatMap((row, i) => ["forward", "backward"].map((side, column) =>
      box(say, row, side, [i, column], choose, () => drawDetail(say, detail, row, side)))));
    chosen.box[0] = Math.min(chosen.box[0], rows.length - 1);
    const current = boxAt(grid, chosen.box);
    current.tabIndex = 0;
    if (focused) current.focus();
    drawDetail(say, detail, rows[chosen.box[0]], ["forward", "backward"][chosen.box[1]]);
    controls.update(answer.numbers);
    summary.replaceChildren(...summaryOf(say, answer));
  }
  refresh();
}

// The ops, with the input above them and the loss below.
function withEnds(answer) {
  const [x] = answer.numbers, dy = answer.nodes.at(-1).backward.inputs[0];
  const loss = {name: "L", shape: [], values: [answer.loss.now], before: null, paths: 1};
  const bare = {formula: "", inputs: [], broken: false};
  return [{name: "x", forward: {...bare, outputs: [x]}, backward: {...bare, inputs: [answer.dx], outputs: []}}, ...answer.nodes,
    {name: "loss", forward: {...bare, formula: "L = Σ dy y", outputs: [loss]}, backward: {...bare, outputs: [dy]}}];
}

function summaryOf(say, {nodes, loss}) {
  const touched = (side) => nodes.filter((node) => node[side].outputs.some(({before}) => before)).length;
  const [forward, backward] = [touched("forward"), touched("backward")];
  const parts = [element("strong", {}, say("loss")(loss.now)), " "];
  if (loss.predicted !== null) parts.push(`(${say("predicted")(loss.before, loss.slope, loss.predicted)}) `);
  return [...parts, forward + backward ? say("touched")(forward, backward) : say("nothing")];
}

// ---- controls ----------------------------------------------------------------------------------------------------------

function changeControls(say, choose, renew) {
  let numbers = [];
  const seed = element("input", {type: "number", min: 0, max: 9999, value: chosen.seed, onchange: () => {
    Object.assign(chosen, {seed: Number(seed.value), value: null});
    renew();
  }});
  const name = element("select", {onchange: () => choose(name.value, shapeOf(name.value).map(() => 0))});
  const index = element("select", {onchange: () => choose(chosen.name, JSON.parse(index.value))});
  const value = element("input", {type: "number", step: 0.1, min: -100, max: 100, oninput: () => change(value.value)});
  const slider = element("input", {type: "range", step: 0.05, min: -3, max: 3, "aria-label": say("value"),
    oninput: () => change(slider.value)});
  const reset = element("button", {type: "button", onclick: () => choose(chosen.name, chosen.index)}, say("reset"));
  const shapeOf = (path) => numbers.find((number) => number.path === path).shape;
  function change(text) {
    if (text === "" || !Number.isFinite(Number(text))) return;  // a number that is not typed to its end
    chosen.value = Number(text);
    renew();
  }
  function update(answered) {
    numbers = answered;
    if (!name.options.length) {
      name.append(...numbers.map(({path, name: symbol}) => element("option", {value: path},
        path === symbol ? path : `${symbol} (${path})`)));
    }
    name.value = chosen.name;
    const {shape, values} = numbers.find(({path}) => path === chosen.name);
    index.replaceChildren(...values.map((_, i) => element("option", {value: JSON.stringify(unravel(i, shape))},
      `[${unravel(i, shape).join(", ")}]`)));
    index.value = JSON.stringify(chosen.index);
    const current = chosen.value ?? values[ravel(chosen.index, shape)];
    for (const input of [value, slider]) if (input !== document.activeElement) input.value = current;
    reset.ariaDisabled = chosen.value === null;                 // a button that is disabled would lose the focus
  }
  const labelled = (key, ...inputs) => element("label", {}, element("span", {}, say(key)), ...inputs);
  return {update, root: element("div", {class: "step-controls"}, labelled("seed", seed), labelled("number", name),
    labelled("index", index), labelled("value", value), slider, reset, element("span", {class: "help"}, say("changeHelp")))};
}

function bugControls(say, ask, report, renew) {
  const select = element("select", {onchange: () => { chosen.bug = select.value; renew(); }},
    ...Object.entries(say("bugs")).map(([name, text]) => element("option", {value: name, selected: name === chosen.bug}, text)));
  const button = element("button", {type: "button", onclick: async () => {
    const {seed, bug} = chosen;
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = true;
    report.replaceChildren(say("checking"));
    try {
      const answer = await ask("broken", {seed, bug});
      if (seed === chosen.seed && bug === chosen.bug) report.replaceChildren(...checkTable(say, answer));
    } catch {
      report.replaceChildren();                                 // the frame of the page has shown why
    }
    button.ariaDisabled = false;
  }}, say("check"));
  return element("div", {class: "step-controls"}, element("label", {}, element("span", {}, say("bug")), select), button);
}

function checkTable(say, {rows, wrong}) {
  const cells = rows.flatMap((row) => [element("tr", {class: row.ok ? "" : "wrong"},
    element("th", {scope: "row"}, `${row.ok ? "✓" : "✗"} ${row.tensor}`), element("td", {}, row.worst.length ? `[${row.worst.join(", ")}]` : ""),
    ...[row.analytic, row.numeric, row.error].map((number) => element("td", {}, number === null ? "" : written(number)))),
  ...(row.diagnosis ? [element("tr", {class: "wrong diagnosis"}, element("td", {colspan: 5}, row.diagnosis))] : [])]);
  return [element("p", {}, element("strong", {}, wrong ? say("wrong")(wrong, rows.length) : say("right"))),
    element("div", {class: "step-report", tabindex: 0, role: "region", "aria-label": say("check"), "aria-live": "off"}, element("table", {},
      element("thead", {}, element("tr", {}, ...say("head").map((head) => element("th", {scope: "col"}, head)))),
      element("tbody", {}, ...cells)))];
}

const written = (number) => number !== 0 && Math.abs(number) < 0.001 ? number.toExponential(1) : String(number);

// ---- boxes -------------------------------------------------------------------------------------------------------------

// One op in one direction: its name, the parameters it reads, and what comes out.
function box(say, row, side, at, choose, open) {
  const {inputs, outputs, broken, formula} = row[side];
  const shown = side === "forward" ? [...inputs.filter(({path}) => path && path !== "x"), ...outputs] : [...outputs];
  if (row.name === "x" && side === "backward") shown.push(...inputs);
  const touched = shown.some(({before}) => before);
  const title = `${say("nodes")[row.name]} · ${say(side)}`;
  return element("div", {class: `step-box ${side}${broken ? " broken" : ""}${touched ? " touched" : ""}`, role: "group",
    tabindex: -1, "aria-label": `${title}. ${formula}`, "data-at": at.join(), onpointerenter: open,
    onfocus: () => { chosen.box = at; open(); }},
  element("h2", {}, title, ...(broken ? [element("em", {}, say("broken"))] : [])),
  element("div", {class: "step-tensors"}, ...shown.map((tensor) => tensorTable(say, tensor, choose))));
}

const boxAt = (grid, at) => grid.querySelector(`[data-at="${at.join()}"]`);

// One box is a stop of the Tab key; the arrow keys move among them.
function moveFocus(event, grid) {
  const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  const next = step && boxAt(grid, chosen.box.map((number, axis) => number + step[axis]));
  if (!next) return;
  event.preventDefault();
  boxAt(grid, chosen.box).tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function drawDetail(say, detail, row, side) {
  const {formula, file, line, inputs, outputs} = row[side];
  const list = (key, tensors) => tensors.length ? [element("h3", {}, say(key)), ...tensors.map((tensor) =>
    element("div", {}, `${tensor.name} (${tensor.shape.join(", ")})`, pathsOf(say, tensor, side, key), tensorTable(say, tensor)))] : [];
  detail.replaceChildren(element("h2", {}, `${say("nodes")[row.name]} · ${say(side)}`),
    ...formula.split(",  ").map((part) => element("div", {class: "formula"}, part)),
    ...(file ? [element("p", {}, say("code"), ": ", element("code", {}, `${file}:${line}`))] : []),
    ...list("inputs", inputs), ...list("outputs", outputs));
}

// What enters a backward is the sum of the gradients of all uses; what leaves it is one of them.
function pathsOf(say, {paths}, side, key) {
  if (side === "forward" || paths < 2) return "";
  return ` – ${say(key === "inputs" ? "total" : "paths")(paths)}`;
}

// The numbers of a tensor: one grid for each matrix, such as for each head. With "choose", a number that may change is chosen by
// a click; the select above does the same for the keyboard.
function tensorTable(say, tensor, choose = null) {
  const {name, shape, values, before, path} = tensor;
  const columns = shape.at(-1) ?? 1, rows = shape.length > 1 ? shape.at(-2) : 1;
  const largest = Math.max(1e-9, ...values.map(Math.abs));      // rounding errors around 0 stay pale
  const cells = values.map((value, i) => {
    const was = before?.[i] ?? null, at = unravel(i, shape), isChosen = path === chosen.name && String(at) === String(chosen.index);
    const heat = `--heat: ${Math.round(40 * Math.abs(value) / largest)}%; --end: var(${value < 0 ? "--other" : "--main"})`;
    return element("span", {style: heat, title: `${name}[${at.join(", ")}] = ${was === null ? value : say("was")(was, value)}`,
      class: [was === null ? "" : "changed", choose && path ? "may-change" : "", isChosen ? "chosen" : ""].join(" "),
      ...(choose && path ? {onclick: () => choose(path, at)} : {})}, value.toFixed(2));
  });
  const matrices = Array.from({length: values.length / (rows * columns)}, (_, i) => element("span",
    {class: "matrix", style: `--columns: ${columns}`}, ...cells.slice(i * rows * columns, (i + 1) * rows * columns)));
  return element("figure", {}, element("figcaption", {}, name), ...matrices);
}

function unravel(flat, shape) {
  return shape.reduceRight(({at, rest}, size) => ({at: [rest % size, ...at], rest: Math.floor(rest / size)}), {at: [], rest: flat}).at;
}

const ravel = (index, shape) => index.reduce((flat, i, axis) => flat * shape[axis] + i, 0);
