// Everything is drawn once, and again when the page turns dark or light.

function drawAll() {
  drawCells();
  drawLandscape();
  showStairs();
}

setPoints(START_POINTS);
placeStart(...valley.start);
descend(true);
resetStairs();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
if (location.hash === "#selftest") selftest();
document.body.dataset.ready = "yes";
