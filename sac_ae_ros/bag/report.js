"use strict";
// One time for the whole page: the video's, or without one what was clicked last.
const ticks = JSON.parse(document.getElementById("ticks").textContent);
const video = document.querySelector("video");
const timeline = document.querySelector(".timeline");
const cursor = timeline.querySelector(".cursor");
const readout = document.querySelector(".readout");
const left = Number(timeline.dataset.left);
const right = Number(timeline.dataset.right);
let shown = 0;

function nearest(atS) {
    let low = 0;
    let high = ticks.at_s.length - 1;
    while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (ticks.at_s[middle] <= atS + 1e-3) low = middle;
        else high = middle - 1;
    }
    return low;
}

function text(value, unit) {
    return value === null ? "none" : `${value} ${unit}`;
}

function show(atS) {
    shown = Math.min(Math.max(atS, 0), ticks.end_s);
    cursor.hidden = false;
    cursor.style.left = `${100 * (left + (right - left) * shown / ticks.end_s)}%`;
    timeline.setAttribute("aria-valuenow", shown.toFixed(1));
    const i = nearest(shown);
    const parts = [`${shown.toFixed(1)} s`];
    for (const action of ticks.actions) {
        const [policy, recorded] = [action.policy, action.recorded].map(values => text(values[i], action.unit));
        parts.push(`${action.name}: policy ${policy}, recorded ${recorded}`);
    }
    if (ticks.novelty[i] !== null) parts.push(`novelty ${ticks.novelty[i]}`);
    readout.replaceChildren(...parts.map(part => Object.assign(document.createElement("span"), {textContent: part})));
}

function go(atS) {
    show(atS);
    if (video) video.currentTime = Math.min(shown, video.duration || shown);
}

function follow() {
    if (!video.seeking) show(video.currentTime);
    if (!video.paused) requestAnimationFrame(follow);
}

function goToPointer(event) {
    const box = timeline.getBoundingClientRect();
    go(((event.clientX - box.left) / box.width - left) / (right - left) * ticks.end_s);
}

timeline.addEventListener("pointerdown", event => {
    timeline.setPointerCapture(event.pointerId);
    goToPointer(event);
});
timeline.addEventListener("pointermove", event => {
    if (event.buttons & 1) goToPointer(event);
});
timeline.addEventListener("keydown", event => {
    const steps = {ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10};
    if (!(event.key in steps)) return;
    event.preventDefault();
    const i = Math.min(Math.max(nearest(shown) + steps[event.key], 0), ticks.at_s.length - 1);
    go(ticks.at_s[i]);
});
for (const button of document.querySelectorAll(".jump")) {
    button.addEventListener("click", () => {
        go(Number(button.dataset.at));
        timeline.scrollIntoView({block: "center", behavior: "smooth"});
    });
}
if (video) {
    video.addEventListener("play", follow);
    video.addEventListener("seeked", follow);
}
