// The page of one video: joins the player, the timeline, and the table.

const answer = new Answer(embedded("answer"));
const thumbnails = embedded("thumbnails").map((each) => ({ ...each, url: `data:image/jpeg;base64,${each.jpeg}` }));
const player = new Player(answer.duration, thumbnails);
const timeline = new Timeline(answer, player, thumbnails);
const segments = new SegmentTable(answer, player);

function update() {
  timeline.follow();
  segments.follow();
}

player.addEventListener("change", () => {
  update();
  if (player.isPlaying) requestAnimationFrame(play);
});

let isLooping = false;
function play() {
  if (isLooping) return;
  isLooping = true;
  requestAnimationFrame(function step() {
    isLooping = player.isPlaying;
    timeline.reveal(player.time);
    update();
    if (isLooping) requestAnimationFrame(step);
  });
}

const search = document.querySelector("#search");
search.addEventListener("input", () => {
  timeline.wanted = segments.wanted = search.value.trim();
  timeline.listLanes();
  segments.list();
});
