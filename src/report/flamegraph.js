// The flame graph's life in a browser: hover, zoom, search, keyboard. It draws nothing that is not
// there already: frames are moved and hidden. What is typed or named never becomes markup.
(() => {
"use strict";
const svg = (document.currentScript && document.currentScript.ownerSVGElement) ||
	document.documentElement;
const [fit, shape, marginText, rowText, topText, levelsText] = svg.dataset.layout.split(",");
const margin = +marginText, row = +rowText, top = +topText, levels = +levelsText;
const alone = svg === document.documentElement;
const one = name => svg.querySelector("." + name);
const head = one("head"), details = one("details"), matched = one("matched");
const reset = one("reset"), find = one("find"), legend = one("legend");
const SVG = svg.namespaceURI;

const frames = Array.from(svg.querySelectorAll(".f"), (g, index) => {
	const [level, x, wide] = g.dataset.f.split(",").map(Number);
	const [name, figures] = g.querySelector("title").textContent.split(/\n(?=[^\n]*$)/);
	return { g, index, level, x, wide, value: +(g.dataset.v || wide), end: x + wide, name, figures,
		brief: g.dataset.s || name,
		rects: g.querySelectorAll("rect"), text: g.querySelector("text"), shown: true };
});
const frameOf = new Map(frames.map(frame => [frame.g, frame]));
const root = frames[0];
let zoomed = root, at = null, inverted = shape === "icicle";
let width = svg.width.baseVal.value, character = 7.25;

// ---- layout ----

function columns(letter) {
	return letter.codePointAt(0) < 0x1000 ? 1 : 2;
}

// As much of the name as fits; what has to be cut is the one without arguments.
function fitting(name, brief, room) {
	let used = 0, cut = "", text = "";
	for (const letter of name) {
		used += columns(letter);
		if (used > room)
			return name === brief ? cut + "\u2026" : fitting(brief, brief, room);
		text += letter;
		if (used < room)
			cut = text;
	}
	return name;
}

function middle(text, room) {
	const letters = Array.from(text), half = Math.max(1, Math.floor((room - 1) / 2));
	return letters.length <= room ? text :
		letters.slice(0, half).join("") + "\u2026" + letters.slice(-half).join("");
}

function rowOf(frame) {
	return top + row * (inverted ? frame.level : levels - 1 - frame.level);
}

function drawText(frame, x, y, wide) {
	const room = Math.floor((wide - 6) / character);
	if (room < 3) {
		if (frame.text)
			frame.text.textContent = "";
		return;
	}
	if (!frame.text)
		frame.text = frame.g.appendChild(document.createElementNS(SVG, "text"));
	frame.text.setAttribute("x", (x + 3).toFixed(1));
	frame.text.setAttribute("y", y + 13);
	frame.text.textContent = fitting(frame.name, frame.brief, room);
}

function draw(frame, x, wide) {
	const y = rowOf(frame), shown = wide > 2 ? wide - 0.5 : wide;
	for (const rect of frame.rects) {
		rect.setAttribute("x", x.toFixed(1));
		rect.setAttribute("y", y);
		rect.setAttribute("width", (shown * (rect.dataset.u || 1)).toFixed(1));
	}
	drawText(frame, x, y, wide);
}

function isAbove(frame, other) {
	return frame.level < other.level && frame.x <= other.x && frame.end >= other.end;
}

function layout() {
	const wide = width - 2 * margin, scale = zoomed.wide ? wide / zoomed.wide : 0;
	for (const frame of frames) {
		const above = isAbove(frame, zoomed);
		const inside = frame.level >= zoomed.level && frame.x >= zoomed.x &&
			frame.end <= zoomed.end;
		frame.shown = above || (inside && frame.wide * scale >= 0.1) || frame === zoomed;
		frame.g.classList.toggle("gone", !frame.shown);
		frame.g.classList.toggle("above", above);
		if (above)
			draw(frame, margin, wide);
		else if (frame.shown)
			draw(frame, margin + (frame.x - zoomed.x) * scale, frame.wide * scale);
	}
	reset.setAttribute("visibility", zoomed === root ? "hidden" : "visible");
}

function resize() {
	// A scroll bar takes some of the window's.
	const room = document.documentElement.clientWidth || innerWidth;
	if (fit !== "fluid" || !alone || room < 300 || room === width)
		return;
	width = room;
	const height = svg.height.baseVal.value;
	svg.setAttribute("width", width);
	svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
	for (const name of ["title", "subtitle"])
		head.querySelector("." + name).setAttribute("x", width / 2);
	for (const text of [find, matched])
		text.setAttribute("x", width - margin);
	layout();
}

// The head stays in sight.
function follow() {
	if (alone)
		head.setAttribute("transform", `translate(0 ${Math.max(0, scrollY)})`);
}

// ---- details of a frame ----

function describe(frame) {
	if (legend)
		legend.classList.toggle("gone", !!frame);
	if (!frame) {
		details.textContent = "";
		return;
	}
	let figures = frame.figures;
	if (zoomed !== root && zoomed.value && !isAbove(frame, zoomed))
		figures += `, ${(100 * frame.value / zoomed.value).toFixed(2)} % of what is zoomed`;
	const taken = matched.textContent.length + 4;
	const room = Math.floor((width - 2 * margin) / character) - figures.length - taken;
	details.textContent = middle(frame.name, Math.max(room, 12)) + ": " + figures;
}

function under(event) {
	const g = event.target.closest && event.target.closest(".f");
	return g ? frameOf.get(g) : null;
}

// ---- zoom and search, kept in the address so that Back undoes and a link shows the same ----

let pattern = "";

function remember() {
	if (!alone)
		return;
	const words = [];
	if (zoomed !== root)
		words.push("zoom=" + zoomed.index);
	if (pattern)
		words.push("search=" + encodeURIComponent(pattern));
	const hash = words.length ? "#" + words.join("&") : "";
	if (hash === location.hash)
		return;
	try {
		history.pushState(null, "", hash || "#");
	} catch (refused) {
		// Not everywhere is there a history.
	}
}

function recall() {
	const words = new URLSearchParams(location.hash.slice(1));
	zoomed = frames[+words.get("zoom")] || root;
	layout();
	search(words.get("search") || "");
}

function zoom(frame) {
	zoomed = frame;
	layout();
	describe(at || null);
	remember();
}

function expression(text) {
	try {
		// Capitals in it ask for them.
		return new RegExp(text, /[A-Z]/.test(text) ? "u" : "iu");
	} catch (wrong) {
		return null;
	}
}

// Returns false if @text is no regular expression.
function search(text) {
	const wanted = text ? expression(text) : null;
	let sum = 0, count = 0, last = null;
	pattern = text;
	for (const frame of frames) {
		const hit = !!wanted && frame !== root && wanted.test(frame.name);
		frame.hit = hit;
		frame.g.classList.toggle("hit", hit);
		if (!hit)
			continue;
		count++;
		// Frames come depth first: what lies in the last counted one is counted already.
		if (!last || !isAbove(last, frame)) {
			sum += frame.value;
			last = frame;
		}
	}
	if (text && !wanted)
		matched.textContent = "not a regular expression";
	else
		matched.textContent = wanted ? `Matched: ${root.value ?
			(100 * sum / root.value).toFixed(2) : "0.00"} % in ${count} frames` : "";
	find.textContent = text ? "Clear search" : "Search";
	return !text || !!wanted;
}

let field = null;

function openField() {
	if (field) {
		field.focus();
		return;
	}
	const box = document.createElementNS(SVG, "foreignObject");
	const wide = Math.min(320, width / 3);
	box.setAttribute("x", width - margin - wide);
	box.setAttribute("y", 8);
	box.setAttribute("width", wide);
	box.setAttribute("height", 28);
	field = document.createElementNS("http://www.w3.org/1999/xhtml", "input");
	field.setAttribute("class", "field");
	field.setAttribute("placeholder", "regular expression");
	field.style.cssText = "box-sizing:border-box;width:100%;height:26px;padding:0 8px;" +
		"font:inherit;border:1px solid #8c959f;border-radius:5px;outline-color:#a516ad";
	field.value = pattern;
	field.addEventListener("input", () => {
		field.style.borderColor = search(field.value) ? "#8c959f" : "#d1242f";
	});
	field.addEventListener("keydown", event => {
		event.stopPropagation();
		if (event.key === "Enter") {
			closeField();
			remember();
		} else if (event.key === "Escape") {
			search("");
			closeField();
			remember();
		}
	});
	field.addEventListener("blur", () => closeField());
	box.appendChild(field);
	head.appendChild(box);
	find.setAttribute("visibility", "hidden");
	field.focus();
}

function closeField() {
	const box = field && field.parentNode;
	if (!box)
		return;
	field = null;
	box.remove();
	find.setAttribute("visibility", "visible");
}

// ---- keyboard ----

function go(frame) {
	if (!frame)
		return;
	if (at)
		at.g.classList.remove("at");
	at = frame;
	at.g.classList.add("at");
	describe(at);
	if (!alone)
		return;
	const y = rowOf(at);
	if (y - top < scrollY || y + row > scrollY + innerHeight)
		scrollTo(0, Math.max(0, y - innerHeight / 2));
}

function leave() {
	if (at)
		at.g.classList.remove("at");
	at = null;
	describe(null);
}

function parentOf(frame) {
	return frames.find(other => other.level === frame.level - 1 && isAbove(other, frame));
}

// The widest.
function childOf(frame) {
	return frames.filter(other => other.shown && other.level === frame.level + 1 &&
		isAbove(frame, other)).reduce((best, other) =>
		!best || other.wide > best.wide ? other : best, null);
}

function besides(frame, direction) {
	const same = frames.filter(other => other.shown && other.level === frame.level);
	return same[same.indexOf(frame) + direction];
}

function onKey(event) {
	if (event.ctrlKey || event.altKey || event.metaKey)
		return;
	const outward = inverted ? "ArrowDown" : "ArrowUp";
	const inward = inverted ? "ArrowUp" : "ArrowDown";
	if (event.key === "/")
		openField();
	else if (event.key === "Escape")
		pattern ? (search(""), remember()) : at ? leave() : zoom(root);
	else if (event.key === "Enter" && at)
		zoom(at);
	else if (event.key === "Home")
		zoom(root);
	else if (event.key === "i") {
		inverted = !inverted;
		layout();
	} else if (event.key.startsWith("Arrow")) {
		if (!at)
			go(zoomed);
		else if (event.key === outward)
			go(childOf(at));
		else if (event.key === inward)
			go(parentOf(at));
		else
			go(besides(at, event.key === "ArrowLeft" ? -1 : 1));
	} else {
		return;
	}
	event.preventDefault();
}

// ---- beginning ----

svg.classList.add("live");
find.setAttribute("visibility", "visible");
svg.addEventListener("click", event => {
	const frame = under(event);
	if (frame) {
		leave();
		zoom(frame);
		describe(frame);
	}
});
svg.addEventListener("mouseover", event => describe(under(event) || at));
svg.addEventListener("mouseleave", () => describe(at));
reset.addEventListener("click", () => zoom(root));
find.addEventListener("click", () => {
	if (!pattern)
		return openField();
	search("");
	remember();
});
(alone ? window : svg).addEventListener("keydown", onKey);
if (alone) {
	addEventListener("resize", resize);
	addEventListener("scroll", follow);
	addEventListener("popstate", recall);
	const probe = details.cloneNode();
	probe.textContent = "m".repeat(50);
	head.appendChild(probe);
	character = probe.getComputedTextLength() / 50 || character;
	probe.remove();
	resize();
	recall();
	// The root of a tall flame is at the bottom.
	if (!inverted && !location.hash)
		scrollTo(0, svg.height.baseVal.value);
	follow();
}
})();
