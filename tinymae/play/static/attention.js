// The tab "attention": a sentence is translated token by token; its attention forward, and the gradient of one token backward.
//
// Two rows of tokens have a line for every weight, and a heatmap has the same numbers. The reader selects a token of either
// row, a query or a key; lines, heatmaps and the list of probabilities follow.
import {
  button, fill, heatmap, labelled, mapTexts, minus, node, onReach, reading, rovingRow, select, short, switchOf, tokenLines,
} from "./attention_map.js";

const PACE = 700;                                   // milliseconds from one token to the next

export const texts = {
  en: {
    ...mapTexts.en,
    title: "Attention",
    intro: "A small Transformer translates the sentences of a phrasebook from Chinese to English. It runs now, in NumPy.",
    introOwn: "Your translator, {name}, runs now, in NumPy.", sentenceOwn: "Sentence",
    start: "Type a sentence in the language that it translates from.",
    sentence: "Chinese sentence", translate: "Translate", examples: "Examples:",
    temperature: "Temperature", greedyTemperature: "0: nothing is drawn at random", beam: "Beam width",
    greedy: "1 (greedy)", again: "Draw again", beamOff: "Beam search draws nothing at random: it needs temperature 0.",
    play: "Play", pause: "Pause", step: "Step", all: "Show all",
    output: "Output tokens", probability: "probability", logP: "log p of the sentence: {n}",
    cut: "There is no <eos>: the output was cut off.",
    unknown: "Unknown to the model, read as <unk>: {tokens}",
    readOutput: "Each token was chosen given the source and the tokens before it; the number is its probability. "
      + "Click a token to see the backward pass of its loss.",
    attention: "Attention", encoder: "Encoder: source to source", decoder: "Decoder: output to output",
    cross: "Cross: output to source",
    layer: "Layer", layerNumber: "layer {n}",
    forward: "Forward: who attends to whom",
    keysSource: "Keys: source tokens", queriesSource: "Queries: source tokens", keysInputs: "Keys: tokens the decoder has read",
    queriesInputs: "Queries: tokens the decoder reads, one per step", queriesTarget: "Queries: output tokens, one per step",
    scores: "scores", show: "Heatmap", mask: "Causal mask", before: "before the mask",
    after: "after the mask",
    noMask: "There is no mask here: one sentence alone has no padding, and every source token may be attended to.",
    readScores: "A score is q·k / √d_k; the softmax of a row of scores gives its weights. For the mean of heads, both are "
      + "averages.",
    readBefore: "Dashed cells lie in the future of their query. Before the mask they have scores and would receive weight.",
    readAfter: "Hatched cells lie in the future of their query: the mask sets the score to −∞, so the weight is 0 and the "
      + "other weights grow.",
    stepTitle: "Step {n}: {token}", top: "The five most probable tokens",
    readSteps: "Bars are the model's probabilities for this step.",
    readDrawn: "The lighter bar is the probability with which a token is drawn at temperature {t}; <unk>, <pad> and <bos> are "
      + "never drawn.",
    backward: "Backward: the loss of one output token", pickToken: "Click an output token.",
    lossOf: "loss = −log p({token}) = {loss}, p = {p}",
    readGradient: "dL/dscores says how the loss changes when one score grows. Negative: attending more to this key would make "
      + "the token more probable. Each row sums to 0, because softmax ignores what all scores of a row have in common.",
    readGradientRows: "Steps after the chosen one have no part in its loss, so their rows are 0; in the last layer, only its "
      + "own row is not. A masked score cannot change the loss either.",
    source: "What reaches the source", norm: "norm of the gradient", dot: "gradient · embedding", token: "Token",
    readSource: "The norm says how strongly the loss depends on the token's embedding; gradient · embedding is negative if a "
      + "larger embedding would make the output token more probable. Both are first-order: they hold for small changes.",
  },
  zh: {
    ...mapTexts.zh,
    title: "注意力",
    intro: "一个小型 Transformer 把短句语料里的句子从中文译成英文，此刻由 NumPy 现场计算。",
    introOwn: "你的翻译模型 {name} 此刻由 NumPy 现场计算。", sentenceOwn: "句子",
    start: "请输入一个源语言的句子。",
    sentence: "中文句子", translate: "翻译", examples: "例句：",
    temperature: "温度", greedyTemperature: "0：不做随机采样", beam: "束宽",
    greedy: "1（贪心）", again: "重新采样", beamOff: "束搜索不做随机采样，要求温度为 0。",
    play: "播放", pause: "暂停", step: "单步", all: "全部显示",
    output: "输出词元", probability: "概率", logP: "整句的 log p：{n}",
    cut: "没有生成 <eos>，输出被截断。",
    unknown: "词表外的词元，模型读作 <unk>：{tokens}",
    readOutput: "每个词元都根据源句和它之前的词元选出，下面的数字是它的概率。点击一个词元，查看它的损失如何反向传播。",
    attention: "注意力", encoder: "编码器自注意力", decoder: "解码器自注意力", cross: "交叉注意力",
    layer: "层", layerNumber: "第 {n} 层",
    forward: "前向：谁关注谁",
    keysSource: "键：源句词元", queriesSource: "查询：源句词元", keysInputs: "键：解码器已读入的词元",
    queriesInputs: "查询：解码器读入的词元，每步一个", queriesTarget: "查询：输出词元，每步一个",
    scores: "得分", show: "热力图", before: "掩码前", after: "掩码后", mask: "因果掩码",
    noMask: "这里没有掩码：单独一个句子没有填充，源句的所有词元都可以被关注。",
    readScores: "得分是 q·k / √d_k，对一行得分做 softmax 就得到这一行的权重。选“各头平均”时，两者分别取平均。",
    readBefore: "虚线格是相对于该查询的未来位置：加掩码之前它们也有得分，也会分到权重。",
    readAfter: "斜线格是相对于该查询的未来位置：掩码把得分设为 −∞，权重因此为 0，其余权重相应变大。",
    stepTitle: "第 {n} 步：{token}", top: "概率最高的五个词元",
    readSteps: "条形是模型在这一步给出的概率。",
    readDrawn: "浅色条形是温度为 {t} 时的采样概率；<unk>、<pad> 和 <bos> 从不被采样。",
    backward: "反向：一个输出词元的损失", pickToken: "请点击一个输出词元。",
    lossOf: "损失 = −log p({token}) = {loss}，p = {p}",
    readGradient: "dL/dscores 表示某个得分增大时损失如何变化。负值表示：更多地关注这个键，会让该词元的概率更高。"
      + "每行之和为 0，因为一行得分同时加上一个常数，softmax 的结果不变。",
    readGradientRows: "所选步骤之后的各步与它的损失无关，所以那些行都为 0；在最后一层，只有它自己那一行不为 0。被掩码的得分同样不影响损失。",
    source: "传到源句的梯度", norm: "梯度的范数", dot: "梯度 · 嵌入", token: "词元",
    readSource: "范数表示损失对该词元的嵌入有多敏感；“梯度 · 嵌入”为负，表示把嵌入放大会让输出词元的概率更高。"
      + "两者都是一阶量，只对微小的变化成立。",
  },
};

// What the tab shows, kept while the language or the tab changes.
const state = {
  about: null, text: "", temperature: 0, beam: 1, seed: 0, answer: null, shown: 0, playing: false,
  kind: "cross", layer: 1, head: null, values: "weights", when: "after",                 // head null: the mean of all
  selected: {side: "query", index: 0}, step: 0, token: null, gradient: null,
};
const asked = {translate: 0, gradient: 0};          // numbers of the last questions: answers to earlier ones are dropped
let timer = null;
let current = null;                                 // what "show" built last: answers are drawn there

// Build the tab inside "root"; "say" translates a key of texts, "ask(name, arguments)" resolves to the answer of tinymae.
export function show(root, say, ask) {
  clearTimeout(timer);
  const tab = {root, ask, say: (key, values = {}) => fill(say(key), values)};
  current = tab;
  root.classList.add("attn");
  if (state.about) build(tab);
  else start(tab);
}

async function start(tab) {
  try {
    state.about ??= await tab.ask("translator", {});
  } catch {
    return;                                         // the page shows the sentence of the error
  }
  state.text ||= state.about.examples[0] ?? "";
  if (tab.root.isConnected) build(tab);
}

function build(tab) {
  const {say} = tab, {name} = state.about;
  const names = ["output", "choice", "lines", "matrix", "steps", "again", "backward"];
  tab.parts = Object.fromEntries(names.map((part) => [part, node("div")]));
  const {output, choice, lines, matrix, steps, again, backward} = tab.parts;
  tab.start = node("p", {class: "attn-note", text: say("start"), hidden: Boolean(state.text)});
  tab.sentence = node("p", {class: "attn-sentence", lang: name ? "" : "en", ariaLive: "polite"});
  tab.loss = node("p", {ariaLive: "polite"});
  tab.backwardTitle = node("h2", {text: say("backward")});
  tab.results = node("div", {hidden: true}, tab.sentence, output,
    node("h2", {text: say("forward")}), choice, lines, node("div", {class: "attn-columns"}, matrix, steps),
    tab.backwardTitle, again, tab.loss, backward);
  tab.root.append(node("p", {text: name ? say("introOwn", {name}) : say("intro")}), askForm(tab), tab.start, tab.results);
  if (state.answer) drawAll(tab);
  else if (state.text) translate(tab);
}

// ---- Questions

async function translate(tab) {
  const number = ++asked.translate;
  const {text, temperature, seed} = state;
  let answer;
  try {
    answer = await tab.ask("translate", {text, temperature, seed, beam: temperature > 0 ? 1 : state.beam});
  } catch {
    return;                                         // the page shows the sentence of the error
  }
  if (number !== asked.translate) return;
  const still = prefersStill();
  const shown = still ? answer.target.length : 1;
  const head = state.head !== null && state.head < answer.heads ? state.head : null;
  Object.assign(state, {
    answer, question: {text, temperature}, head, shown, playing: !still, token: null, gradient: null, step: shown - 1,
    layer: Math.min(state.layer, answer.layers[state.kind] - 1),
    selected: {side: "query", index: state.kind === "encoder" ? 0 : shown - 1},
  });
  if (current.root.isConnected) drawAll(current);   // else another tab is shown; this one will be drawn from the state
}

async function differentiate(tab, position) {
  const number = ++asked.gradient, {answer} = state;
  state.token = position;
  markPressed(tab);
  let gradient;
  try {
    gradient = await tab.ask("gradient", {text: state.question.text, target: answer.ids, position});
  } catch {
    return;
  }
  if (number !== asked.gradient || answer !== state.answer) return;     // another token, or another translation by now
  state.gradient = gradient;
  if (!current.root.isConnected) return;
  drawLoss(current);
  drawBackward(current);
}

// ---- The sentence and how it is decoded

function askForm(tab) {
  const {say} = tab;
  const {name, examples} = state.about;
  const text = node("input", {type: "text", value: state.text, maxLength: 200, lang: name ? "" : "zh", id: "attn-text"});
  const send = () => {
    state.text = text.value;
    translate(tab);
  };
  const form = node("form", {class: "attn-bar"}, node("label", {text: say(name ? "sentenceOwn" : "sentence"), htmlFor: "attn-text"}), text,
    node("button", {type: "submit", text: say("translate")}));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  const starts = node("div", {class: "attn-bar", hidden: !examples.length}, node("span", {text: say("examples")}),
    ...examples.map((example) => button(example, () => {
      text.value = example;
      send();
    }, {lang: /^[ -~]+$/.test(example) ? "en" : "zh"})));
  return node("div", {}, form, starts, decodingBar(tab));
}

function decodingBar(tab) {
  const {say} = tab;
  const number = node("output"), off = node("span", {class: "attn-note"});
  const slider = node("input", {type: "range", min: 0, max: 2, step: 0.1, value: state.temperature});
  const beam = select([1, 2, 4, 8].map((width) => [width, width === 1 ? say("greedy") : width]), state.beam, (width) => {
    state.beam = Number(width);
    translate(tab);
  });
  const again = button(say("again"), () => {
    state.seed += 1;
    translate(tab);
  });
  const follow = () => {                            // what the temperature rules out is switched off, and says why
    number.textContent = state.temperature > 0 ? state.temperature.toFixed(1) : say("greedyTemperature");
    beam.disabled = state.temperature > 0;
    off.textContent = beam.disabled ? say("beamOff") : "";
    again.hidden = !beam.disabled;
  };
  slider.addEventListener("input", () => {
    state.temperature = Number(slider.value);
    follow();
  });
  slider.addEventListener("change", () => translate(tab));
  follow();
  return node("div", {class: "attn-bar"}, labelled(say("temperature"), slider), number, again, labelled(say("beam"), beam),
    off);
}

// ---- The output, one token after another

function drawOutput(tab) {
  const {say} = tab, {answer} = state;
  const behavior = prefersStill() ? "auto" : "smooth";
  const above = outputButtons(tab, () => tab.backwardTitle.scrollIntoView({block: "start", behavior}));
  const below = outputButtons(tab, () => {});       // to compare tokens without leaving their gradients
  above.forEach((each, i) => onReach(each, () => pick(tab, {side: "query", index: i}, true)));
  tab.outputs = [above, below];
  tab.parts.again.replaceChildren(node("div", {class: "attn-scroll"}, rovingRow(below, say("output"))));
  tab.playButton = button("", () => play(tab, !state.playing));
  const player = node("div", {class: "attn-bar"}, tab.playButton, button(say("step"), () => stepOnce(tab)),
    button(say("all"), () => {
      state.playing = false;
      reach(tab, answer.target.length);
    }));
  const notes = [say("logP", {n: minus(String(answer.log_p))})];
  if (!answer.ended) notes.push(say("cut"));
  if (answer.unknown.length) {
    notes.push(say("unknown", {tokens: [...new Set(answer.unknown.map((i) => answer.source[i]))].join(" ")}));
  }
  tab.parts.output.replaceChildren(player, node("div", {class: "attn-scroll"}, rovingRow(above, say("output"))),
    node("p", {class: "attn-note", text: notes.join(" · ")}), reading(say("readOutput")));
  markPressed(tab);
}

// A button for each token of the output, which takes the gradient of its loss.
function outputButtons(tab, clicked) {
  const {say} = tab, {answer} = state;
  return answer.target.map((token, i) => {
    const p = percent(answer.steps[i].p);
    const title = `${say("stepTitle", {n: i + 1, token})}, ${say("probability")} ${p}`;
    return button(token, async () => {
      await differentiate(tab, i);
      clicked();                                    // by now the page has its full height
    }, {class: "attn-token", title}, node("small", {text: p}));
  });
}

function play(tab, playing) {
  state.playing = playing;
  reach(tab, playing && state.shown === state.answer.target.length ? 1 : state.shown);
}

function stepOnce(tab) {
  state.playing = false;
  reach(tab, state.shown < state.answer.target.length ? state.shown + 1 : 1);
}

// Show the first tokens of the output, and select the newest.
function reach(tab, shown) {
  state.shown = shown;
  pick(tab, {side: "query", index: shown - 1}, true);
  drawMatrix(tab);
  if (state.gradient) drawBackward(tab);            // its rows come one by one, too
  proceed(tab);
}

// Show the tokens that are there already, and go on if the page is playing.
function proceed(tab) {
  clearTimeout(timer);
  const {answer, shown} = state, all = shown === answer.target.length;
  state.playing = state.playing && !all;
  tab.playButton.textContent = tab.say(state.playing ? "pause" : "play");
  for (const tokens of tab.outputs) tokens.forEach((token, i) => token.classList.toggle("attn-later", i >= shown));
  tab.sentence.ariaBusy = state.playing;            // a screen reader waits for the whole sentence
  tab.sentence.textContent = all ? answer.text : answer.target.slice(0, shown).join(" ");
  if (state.playing) timer = setTimeout(() => tab.root.isConnected && reach(tab, shown + 1), PACE);
}

function markPressed(tab) {
  for (const tokens of tab.outputs) tokens.forEach((token, i) => token.setAttribute("aria-pressed", i === state.token));
}

// ---- Which attention

function drawChoice(tab) {
  const {say} = tab, {answer} = state;
  const range = (n) => [...Array(n).keys()];
  const change = (name, read) => (value) => {
    state[name] = read(value);
    if (name === "kind") {
      state.layer = Math.min(state.layer, answer.layers[value] - 1);
      state.selected = {side: "query", index: value === "encoder" ? 0 : state.step};
    }
    drawChoice(tab);
    drawRows(tab);
    drawMatrix(tab);
    drawBackward(tab);
  };
  const kind = select(["encoder", "decoder", "cross"].map((each) => [each, say(each)]), state.kind, change("kind", String));
  const layer = select(range(answer.layers[state.kind]).map((i) => [i, i + 1]), state.layer, change("layer", Number));
  const head = select([["mean", say("mean")], ...range(answer.heads).map((i) => [i, i + 1])], state.head ?? "mean",
    change("head", (value) => (value === "mean" ? null : Number(value))));
  refill(tab.parts.choice, node("div", {class: "attn-bar"}, labelled(say("attention"), kind),
    labelled(say("layer"), layer), labelled(say("head"), head)));
}

// The matrix (Tq, Tk) of the chosen layer and head; the mean stands after the heads.
function chosen(layers) {
  return layers[state.layer][state.head ?? state.answer.heads];
}

// Tokens of both sides of the chosen attention, and how many of them are there already.
function sides() {
  const {answer, kind, shown} = state;
  const source = {tokens: answer.source, there: answer.source.length, unknown: answer.unknown};
  const inputs = {tokens: answer.inputs, there: shown}, target = {tokens: answer.target, there: shown};
  return {
    encoder: {key: source, query: source}, decoder: {key: inputs, query: inputs}, cross: {key: source, query: target},
  }[kind];
}

function masked() {
  return state.kind === "decoder";
}

// The weights that lines and numbers show: those after the mask, unless the reader asks for those before it.
function shownWeights() {
  const attention = state.answer.attention[state.kind];
  return chosen(masked() && state.when === "before" ? attention.unmasked : attention.weights);
}

// Select a token of a row. With "step", it is a step of the decoder: the encoder has none.
function pick(tab, selected, step = false) {
  if (step) state.step = selected.index;
  if (!step || state.kind !== "encoder") state.selected = selected;
  if (state.kind !== "encoder" && selected.side === "query") state.step = selected.index;
  drawSelection(tab);
  drawSteps(tab);
}

// ---- Two rows of tokens with lines

function drawRows(tab) {
  const {say} = tab, {kind} = state;
  const names = {
    encoder: ["keysSource", "queriesSource"], decoder: ["keysInputs", "queriesInputs"], cross: ["keysSource", "queriesTarget"],
  }[kind];
  tab.lines = tokenLines(sides(), {
    say, names: {key: say(names[0]), query: say(names[1])},
    reached: (selected) => pick(tab, selected),
    clicked: (selected) => (selected.side === "query" && kind === "cross" ? differentiate(tab, selected.index) : pick(tab, selected)),
  });
  tab.parts.lines.replaceChildren(tab.lines.node);
  drawSelection(tab);
}

function drawSelection(tab) {
  tab.lines.draw(sides(), shownWeights(), state.selected);
  tab.matrix?.outline(state.selected);
}

// ---- The heatmap of the forward pass

function drawMatrix(tab) {
  const {say} = tab, {values, when} = state, attention = state.answer.attention[state.kind];
  const before = masked() && when === "before";
  const numbers = values === "scores" ? attention.scores : before ? attention.unmasked : attention.weights;
  const change = (name) => (value) => {
    state[name] = value;
    drawMatrix(tab);
    drawSelection(tab);
  };
  const bar = node("div", {class: "attn-bar"},
    switchOf(say("show"), [["scores", say("scores")], ["weights", say("weights")]], values, change("values")),
    masked() ? switchOf(say("mask"), [["before", say("before")], ["after", say("after")]], when, change("when"))
      : node("span", {class: "attn-note", text: say("noMask")}));
  const matrix = heatmap(sides(), {
    say, numbers: chosen(numbers), signed: values === "scores", mask: masked() ? attention.mask : null, before,
    forbidden: values === "scores" ? "−∞" : "0", name: say("matrix", {what: say(values)}),
  });
  const how = [say(values === "scores" ? "readScores" : "readWeights")];
  if (masked()) how.push(say(before ? "readBefore" : "readAfter"));
  tab.matrix = matrix;
  refill(tab.parts.matrix, bar, matrix.node, ...how.map(reading));
  matrix.outline(state.selected);
}

// ---- The probabilities of one step

function drawSteps(tab) {
  const {say} = tab, {answer} = state;
  const step = answer.steps[state.step], drawn = step.drawn !== null;
  const top = step.top.some((each) => each.token === step.token) ? step.top : [...step.top, step];
  const rows = top.map((each) => node("tr", {class: each.token === step.token ? "attn-chosen" : ""},
    node("th", {text: each.token, scope: "row"}),
    node("td", {}, bar(each.p, "attn-model"), drawn ? bar(each.drawn, "attn-drawn") : ""),
    node("td", {class: "attn-number", text: drawn ? `${percent(each.p)} / ${percent(each.drawn)}` : percent(each.p)})));
  const how = [say("readSteps"), ...(drawn ? [say("readDrawn", {t: state.question.temperature.toFixed(1)})] : [])];
  refill(tab.parts.steps, node("h3", {text: say("stepTitle", {n: state.step + 1, token: step.token})}),
    node("table", {class: "attn-bars"}, node("caption", {text: say("top")}), ...rows), ...how.map(reading));
}

// ---- Backward

function drawLoss(tab) {
  const {say} = tab, {gradient} = state;
  tab.loss.textContent = gradient ? say("lossOf", {token: gradient.token, loss: short(gradient.loss), p: short(gradient.p)})
    : say("pickToken");
}

function drawBackward(tab) {
  const {say} = tab, {gradient, answer} = state;
  if (!gradient) {
    tab.parts.backward.replaceChildren();
    return;
  }
  const mask = masked() ? answer.attention.decoder.mask : null;
  const weights = heatmap(sides(), {say, numbers: chosen(answer.attention[state.kind].weights), mask, name: say("weights")});
  const dscores = heatmap(sides(), {say, numbers: chosen(gradient.dscores[state.kind]), mask, signed: true, name: "dL/dscores"});
  const how = [say("readGradient"), ...(state.kind === "encoder" ? [] : [say("readGradientRows")])];
  weights.linked = [dscores];
  dscores.linked = [weights];
  for (const each of state.kind === "encoder" ? [] : [weights, dscores]) each.outline({side: "query", index: state.token});
  tab.parts.backward.replaceChildren(
    node("p", {class: "attn-note", text: [
      say(state.kind), say("layerNumber", {n: state.layer + 1}),
      state.head === null ? say("mean") : say("headNumber", {n: state.head + 1}),
    ].join(" · ")}),
    node("div", {class: "attn-columns"}, weights.node, dscores.node), ...how.map(reading),
    sourceBars(tab), reading(say("readSource")),
  );
}

function sourceBars(tab) {
  const {say} = tab, {source} = state.gradient;
  const norm = Math.max(...source.map((each) => each.norm)) || 1;
  const dot = Math.max(...source.map((each) => Math.abs(each.dot))) || 1;
  const rows = source.map((each, i) => node("tr", {}, node("th", {text: state.answer.source[i], scope: "row"}),
    node("td", {}, bar(each.norm / norm, "attn-model")), node("td", {class: "attn-number", text: short(each.norm)}),
    node("td", {}, signedBar(each.dot / dot)), node("td", {class: "attn-number", text: short(each.dot)})));
  const head = node("tr", {}, node("th", {text: say("token"), scope: "col"}),
    node("th", {text: say("norm"), scope: "col", colSpan: 2}), node("th", {text: say("dot"), scope: "col", colSpan: 2}));
  return node("table", {class: "attn-bars"}, node("caption", {text: say("source")}), head, ...rows);
}

function drawAll(tab) {
  tab.start.hidden = true;
  tab.results.hidden = false;
  drawOutput(tab);
  drawChoice(tab);
  drawRows(tab);
  drawMatrix(tab);
  drawLoss(tab);
  drawBackward(tab);
  drawSteps(tab);
  proceed(tab);
}

// ---- Small parts

function bar(fraction, kind) {
  const made = node("i", {class: `attn-bar-of ${kind}`});
  made.style.width = `${100 * fraction}%`;
  return made;
}

// From the middle to the right if positive, to the left if negative.
function signedBar(fraction) {
  const made = bar(Math.abs(fraction) / 2, fraction < 0 ? "attn-minus" : "attn-plus");
  made.style.marginLeft = fraction < 0 ? `${50 + 50 * fraction}%` : "50%";
  return made;
}

function prefersStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

// Replace the children of a part; a control that has the focus gives it to the one that takes its place.
function refill(part, ...children) {
  const controls = () => [...part.querySelectorAll("select, input, svg[tabindex]")];
  const focused = controls().indexOf(document.activeElement);
  part.replaceChildren(...children);
  if (focused >= 0) controls()[focused]?.focus();
}

function percent(p) {
  return p > 0 && p < 0.001 ? "<0.1%" : `${(100 * p).toFixed(1)}%`;
}

