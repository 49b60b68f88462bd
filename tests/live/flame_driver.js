// Put behind the script of a flame graph by flame.bats: does what a user does, by events only, and
// leaves what the graph then shows as JSON in <desc class="result">.
(() => {
"use strict";
const svg = document.documentElement;
const result = { errors: [] };
const one = name => svg.querySelector("." + name);
const frame = name => Array.from(svg.querySelectorAll(".f")).find(g =>
	g.querySelector("title").textContent.startsWith(name + "\n"));
const label = name => Array.from(svg.querySelectorAll(".f text"), text => text.textContent).find(text =>
	text.startsWith(name));
const shown = () => Array.from(svg.querySelectorAll(".f:not(.gone)"), g =>
	g.querySelector("title").textContent.split("\n")[0]);
const wide = name => +frame(name).querySelector("rect").getAttribute("width");
const click = (element, type = "click") =>
	element.dispatchEvent(new MouseEvent(type, { bubbles: true, view: window }));
const key = (name, element = svg) =>
	element.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const type = text => {
	const field = svg.querySelector(".field");
	field.value = text;
	field.dispatchEvent(new InputEvent("input", { bubbles: true }));
	return field;
};
const look = () => ({
	shown: shown(), count: shown().length,
	reset: one("reset").getAttribute("visibility"),
	matched: one("matched").textContent,
	hits: svg.querySelectorAll(".hit").length,
	at: one("at") ? one("at").querySelector("title").textContent.split("\n")[0] : null,
	details: one("details").textContent,
	hash: location.hash,
	main: wide("main"), serve: wide("serve"),
	idle: label("idle"),
	text: (frame("serve").querySelector("text") || {}).textContent,
});
const steps = {
	begin: () => {},
	hover: () => click(frame("serve").querySelector("rect"), "mouseover"),
	zoom: () => click(frame("serve").querySelector("rect")),
	reset: () => click(one("reset")),
	search: () => { key("/"); type("^Map|inf"); },
	search_kept: () => key("Enter", svg.querySelector(".field")),
	escape: () => key("Escape"),
	capitals: () => { key("/"); type("map"); },
	wrong: () => { type("(") ; },
	field_escape: () => key("Escape", svg.querySelector(".field")),
	click_search: () => { click(one("find")); type("malloc"); key("Enter", svg.querySelector(".field")); },
	click_clear: () => click(one("find")),
	walk: () => { for (const name of ["ArrowUp", "ArrowUp", "ArrowUp"]) key(name); },
	beside: () => key("ArrowRight"),
	beside_again: () => key("ArrowLeft"),
	enter: () => key("Enter"),
	back_up: () => key("ArrowDown"),
	home: () => key("Home"),
	leave: () => key("Escape"),
	turned: () => {
		const before = frame("all").querySelector("rect").getAttribute("y");
		key("i");
		result.turned_root = [+before, +frame("all").querySelector("rect").getAttribute("y")];
		key("i");
	},
};
addEventListener("error", event => result.errors.push(event.message));
for (const [name, step] of Object.entries(steps)) {
	try {
		step();
		result[name] = look();
	} catch (error) {
		result.errors.push(name + ": " + error.message);
	}
}
const desc = document.createElementNS(svg.namespaceURI, "desc");
desc.setAttribute("class", "result");
desc.textContent = "RESULT" + JSON.stringify(result) + "END";
svg.appendChild(desc);
})();
