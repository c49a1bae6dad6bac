// A drawing of attention weights: two rows of tokens with a line for every weight, and a heatmap of the same numbers. The tab
// "attention" has it, and the page that `plot.attention(..., html=FILE)` writes, into which this file is copied.
//
// "sides" is {key, query}: of each its tokens, how many of them are "there" already, and perhaps the indices that are "unknown".
// "selected" is {side, index}: a token of either row. "say(key, values)" gives the texts below.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 130;                                 // of the lines, in pixels

export const mapTexts = {
  en: {
    head: "Head", headNumber: "head {n}", mean: "mean of all heads", weights: "weights",
    readLines: "Point at a token or move to it with the arrow keys. A line is an attention weight: the more opaque, the "
      + "larger. A query's weights sum to 1. Lines of other tokens are dimmed.",
    weightsOf: "{token} attends to: {list}", weightsTo: "{token} receives from: {list}",
    matrix: "{what}: a row is a query, a column is a key",
    readWeights: "Each row is one softmax over the keys; the stronger the colour, the larger the weight.",
    masked: "masked",
    cell: "{query} → {key}",
  },
  zh: {
    head: "头", headNumber: "第 {n} 个头", mean: "各头平均", weights: "权重",
    readLines: "把指针移到词元上，或用方向键移动。每条线是一个注意力权重，越不透明权重越大；一个查询的权重之和为 1。其他词元的线已淡化。",
    weightsOf: "{token} 关注：{list}", weightsTo: "关注 {token} 的有：{list}",
    matrix: "{what}：行是查询，列是键",
    readWeights: "每一行是对所有键做一次 softmax 的结果，颜色越浓权重越大。",
    masked: "被掩码",
    cell: "{query} → {key}",
  },
};

// ---- Two rows of tokens with lines

// {node, draw(sides, weights, selected)}. "names" of the rows, {key, query}; "reached" and "clicked" get a token, as "selected"
// has it, to which the pointer or the keyboard comes, or which is clicked. "largest" is the weight of an opaque line.
export function tokenLines(sides, {say, names, reached, clicked, largest = 1}) {
  const rows = {}, rowNodes = {};
  for (const side of ["key", "query"]) {
    rows[side] = sides[side].tokens.map((token, index) => {
      const unknown = sides[side].unknown?.includes(index);
      const each = button(token, () => clicked({side, index}), {class: `attn-token${unknown ? " attn-unknown" : ""}`},
        node("small", {text: " "}));
      if (unknown) each.title = "<unk>";
      onReach(each, () => reached({side, index}));
      return each;
    });
    rowNodes[side] = rovingRow(rows[side], names[side]);
  }
  const picture = svg("svg", {class: "attn-lines", height: HEIGHT, "aria-hidden": "true"});
  const readout = node("p", {class: "attn-readout"});
  readout.setAttribute("aria-live", "polite");
  const inner = node("div", {class: "attn-inner"}, node("small", {text: names.key}), rowNodes.key, picture, rowNodes.query,
    node("small", {text: names.query}));
  const made = node("div", {}, node("div", {class: "attn-scroll"}, inner), readout, reading(say("readLines")));
  let lines = () => {};
  new ResizeObserver(() => lines()).observe(made);              // lines go from token to token, wherever these have moved

  function draw(there, weights, {side, index}) {
    const other = side === "query" ? "key" : "query";
    const value = (i) => (side === "query" ? weights[index][i] : weights[i][index]);
    for (const each of ["key", "query"]) {
      rows[each].forEach((token, i) => {
        token.classList.toggle("attn-selected", each === side && i === index);
        token.classList.toggle("attn-later", i >= there[each].there);
        token.lastChild.textContent = each === other ? value(i).toFixed(2) : " ";
      });
    }
    const list = there[other].tokens.slice(0, there[other].there).map((token, i) => [token, value(i)])
      .sort((a, b) => b[1] - a[1]).slice(0, 4).map(([token, weight]) => `${token} ${short(weight)}`).join(" · ");
    readout.textContent = say(side === "query" ? "weightsOf" : "weightsTo", {token: there[side].tokens[index], list});
    lines = () => made.isConnected && drawLines(there, weights, {side, index});
    lines();
  }

  function drawLines(there, weights, {side, index}) {
    const middle = (token) => token.offsetLeft + token.offsetWidth / 2;
    const drawn = [];
    weights.slice(0, there.query.there).forEach((row, q) => row.slice(0, there.key.there).forEach((weight, k) => {
      const mine = index === (side === "query" ? q : k), opacity = Math.min(1, weight / largest);
      if (opacity < 0.005) return;                  // no eye could see it
      const line = svg("line", {
        x1: middle(rows.key[k]), y1: 2, x2: middle(rows.query[q]), y2: HEIGHT - 2,
        "stroke-opacity": mine ? opacity : opacity * 0.3, class: mine ? "attn-mine" : "",
      });
      if (mine) drawn.push(line);                   // on top of the others
      else drawn.unshift(line);
    }));
    picture.replaceChildren(...drawn);
  }

  return {node: made, draw};
}

// ---- Heatmaps

// A heatmap of numbers (Tq, Tk) that can be read with the pointer or the arrow keys: {node, outline(selected), point(q, k), linked}.
// Colours go from 0 to "largest"; "signed" numbers diverge from 0 in two colours. A cell that the mask forbids is hatched and read as "forbidden"; with
// "before", it shows what it would be without the mask. Heatmaps of the same shape in "linked" point at the same cell.
export function heatmap(sides, {say, numbers, signed = false, mask = null, before = false, forbidden = "0", name, largest = 1}) {
  const plan = planOf(sides);
  const allowed = (q, k) => before || !mask || mask[q][k];
  const shown = numbers.flatMap((row, q) => row.filter((number, k) => allowed(q, k)));
  const most = signed ? Math.max(...shown.map(Math.abs)) || 1 : largest;
  const {width, height} = plan;
  const picture = svg("svg", {
    class: "attn-heatmap", width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-label": name,
  }, ...labelsOf(plan));
  numbers.slice(0, plan.query.there).forEach((row, q) => row.slice(0, plan.key.there).forEach((number, k) => {
    const cell = svg("rect", {
      ...plan.at(q, k),
      class: `attn-cell${number < 0 ? " attn-negative" : ""}${before && !mask[q][k] ? " attn-future" : ""}`,
      "fill-opacity": allowed(q, k) ? Math.min(1, Math.abs(number) / most) : 0, "data-q": q, "data-k": k,
    });
    picture.append(...(allowed(q, k) ? [] : [hatch(plan.at(q, k))]), cell);
  }));
  const line = svg("rect", {class: "attn-outline"}), spot = svg("rect", {class: "attn-spot"});
  picture.append(line, spot);
  const readout = node("p", {class: "attn-readout", text: " "});
  readout.setAttribute("aria-live", "polite");
  const made = {
    here: [0, 0], linked: [],
    outline: (selected) => set(line, plan.lane(selected)),
    point: (q, k) => {
      made.here = [q, k];
      set(spot, plan.at(q, k));
      const value = allowed(q, k) ? short(numbers[q][k]) : `${forbidden} (${say("masked")})`;
      readout.textContent = `${say("cell", {query: plan.query.tokens[q], key: plan.key.tokens[k]})}: ${value}`;
    },
    node: node("figure", {}, node("figcaption", {text: name}), node("div", {class: "attn-scroll"}, picture),
      legend(signed, most), readout),
  };
  listen(picture, made, plan);
  return made;
}

// Where everything stands in a heatmap, in pixels.
function planOf({key, query}) {
  const most = Math.max(key.tokens.length, query.tokens.length);
  const size = most > 16 ? 18 : most > 10 ? 24 : 32;
  const turned = (token) => textWidth(token) > size;            // it would run into its neighbours
  const left = 12 + Math.max(...query.tokens.map(textWidth));
  const top = 12 + Math.max(13, ...key.tokens.filter(turned).map(textWidth));
  return {
    key, query, size, turned, left, top,
    width: left + size * key.tokens.length + 2, height: top + size * query.tokens.length + 2,
    at: (q, k) => ({x: left + k * size, y: top + q * size, width: size, height: size}),
    lane: ({side, index}) => (side === "query"
      ? {x: left, y: top + index * size, width: size * key.there, height: index < query.there ? size : 0}
      : {x: left + index * size, y: top, width: index < key.there ? size : 0, height: size * query.there}),
  };
}

function labelsOf({key, query, size, turned, left, top}) {
  const columns = key.tokens.slice(0, key.there).map((token, k) => {
    const x = left + (k + 0.5) * size, y = top - 6;
    const place = turned(token) ? {transform: `translate(${x + 4} ${y}) rotate(-90)`} : {x, y, "text-anchor": "middle"};
    return svg("text", place, token);
  });
  const rows = query.tokens.slice(0, query.there).map((token, q) =>
    svg("text", {x: left - 6, y: top + (q + 0.5) * size + 4, "text-anchor": "end"}, token));
  return [...columns, ...rows];
}

// Three slanted lines.
function hatch({x, y, width: size}) {
  const half = size / 2;
  const d = `M${x} ${y + half}l${half} ${-half}M${x} ${y + size}l${size} ${-size}M${x + half} ${y + size}l${half} ${-half}`;
  return svg("path", {class: "attn-hatch", d});
}

// The pointer and the arrow keys point at a cell of a heatmap.
function listen(picture, made, {key, query}) {
  const point = (q, k) => [made, ...made.linked].forEach((each) => each.point(q, k));
  for (const event of ["pointermove", "pointerdown"]) {         // a finger that taps does not move
    picture.addEventListener(event, ({target}) => {
      if (target.dataset.q) point(Number(target.dataset.q), Number(target.dataset.k));
    });
  }
  picture.addEventListener("focus", () => point(...made.here));
  picture.addEventListener("keydown", (event) => {
    const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!move) return;
    event.preventDefault();                         // or the page would scroll
    const [q, k] = made.here;
    point(clamp(q + move[0], query.there), clamp(k + move[1], key.there));
  });
}

function legend(signed, largest) {
  const [low, middle, high] = signed ? [`−${short(largest)}`, "0", `+${short(largest)}`]
    : ["0", short(largest / 2), short(largest)];
  return node("div", {class: `attn-legend${signed ? " attn-signed" : ""}`}, node("i"),
    ...[low, middle, high].map((text) => node("small", {text})));
}

// ---- Small parts

export function node(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "text") made.textContent = value;
    else if (key === "class") made.className = value;
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
}

export function button(text, clicked, properties = {}, ...children) {
  const made = node("button", {type: "button", text, ...properties}, ...children);
  made.addEventListener("click", clicked);
  return made;
}

export function select(options, value, changed) {
  const made = node("select", {}, ...options.map(([key, text]) => node("option", {value: key, text})));
  made.value = value;
  made.addEventListener("change", () => changed(made.value));
  return made;
}

export function labelled(text, control) {
  return node("label", {}, `${text} `, control);
}

// Two or more choices of which one holds, as radio buttons.
export function switchOf(title, options, value, changed) {
  const made = node("fieldset", {class: "attn-switch"}, node("legend", {text: title}));
  for (const [key, text] of options) {
    const radio = node("input", {type: "radio", name: `attn-${title}`, value: key, checked: key === value});
    radio.addEventListener("change", () => changed(key));
    made.append(node("label", {}, radio, text));
  }
  return made;
}

export function reading(text) {
  return node("p", {class: "attn-reading", text});
}

// A row of buttons is one stop of the Tab key; the arrow keys move inside it.
export function rovingRow(buttons, name) {
  const row = node("div", {class: "attn-row"}, ...buttons);
  set(row, {role: "group", "aria-label": name});
  buttons.forEach((each, i) => { each.tabIndex = i ? -1 : 0; });
  row.addEventListener("keydown", (event) => {
    const here = buttons.indexOf(document.activeElement);
    const there = buttons.filter((each) => !each.classList.contains("attn-later")).length;
    const next = {ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: there - 1}[event.key];
    if (next === undefined || !buttons[next] || next >= there) return;
    event.preventDefault();
    buttons.forEach((each, i) => { each.tabIndex = i === next ? 0 : -1; });
    buttons[next].focus();
  });
  return row;
}

// The pointer or the keyboard reaches an element.
export function onReach(element, reached) {
  element.addEventListener("pointerenter", reached);
  element.addEventListener("focus", reached);
}

export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

function clamp(index, length) {
  return Math.max(0, Math.min(length - 1, index));
}

// Three significant digits.
export function short(number) {
  return minus(number !== 0 && Math.abs(number) < 0.001 ? number.toExponential(1) : String(Number(number.toPrecision(3))));
}

// A number with true minus signs.
export function minus(text) {
  return text.replaceAll("-", "−");
}

// About how wide a token is in a heatmap, in pixels: Chinese characters are square, and SentencePiece's ▁ is as wide.
function textWidth(token) {
  return [...token].reduce((sum, letter) => sum + (letter > "⺀" || letter === "▁" ? 13 : 7.2), 0);
}
