// All words that people read, in English and Chinese. {name} is replaced by a value.
import { createStore } from "./store.js";

const WORDS = {
  // frame of the page
  rooms: ["Rooms", "直播间"],
  review: ["Review", "复核"],
  catalogue: ["Catalogue", "商品库"],
  skip: ["Skip to content", "跳到正文"],
  menu: ["Views", "视图"],
  open: ["Connected", "已连接"],
  connecting: ["Connecting", "正在连接"],
  broken: ["Connection lost: what you see may be old", "连接中断：以下内容可能已过时"],
  "signed out": ["Signed out", "未登录"],
  latency: ["Latency p50 {p50}, p95 {p95}", "延迟 p50 {p50}，p95 {p95}"],
  latency_title: ["From the capture of a frame to the event: median and 95th percentile", "从画面采集到事件产生的延迟：中位数与第95百分位"],
  versions: ["Model {model}, index {index}", "模型 {model}，索引 {index}"],
  theme: ["Colours", "配色"],
  theme_auto: ["As the system", "跟随系统"],
  theme_light: ["Light", "浅色"],
  theme_dark: ["Dark", "深色"],
  language: ["中文", "English"],
  language_title: ["切换到中文", "Switch to English"],
  sign_in: ["Sign in", "登录"],
  sign_in_why: ["This monitor asks for a token. Whoever runs it can give you one.", "此监控需要令牌，请向管理员索取。"],
  token: ["Token", "令牌"],
  name: ["Your name, to stand beside what you judge", "您的姓名（显示在判定旁）"],
  sign_out: ["Sign out", "退出登录"],
  wrong_token: ["This token is not known.", "令牌无效。"],
  loading: ["Loading", "加载中"],
  again: ["Try again", "重试"],
  not_found: ["There is nothing at this address.", "此地址没有内容。"],
  viewer_only: ["You may look, not judge: ask for the role reviewer.", "您只有查看权限；如需判定，请申请复核员角色。"],
  more: ["Show more", "显示更多"],
  close: ["Close", "关闭"],

  // rooms
  find_room: ["Find a room", "查找直播间"],
  all_rooms: ["All", "全部"],
  need_help: ["Need help", "需要处理"],
  on_now: ["Showing", "讲解中"],
  no_rooms: ["No rooms yet. They appear as soon as streams are announced.", "暂无直播间。开播后会立即显示。"],
  none_match: ["No room matches.", "没有符合条件的直播间。"],
  nothing_on: ["Nothing from the catalogue is shown", "当前没有展示库内商品"],
  last: ["Last shown: {title}", "上一件：{title}"],
  no_frame: ["No frame kept", "未保存画面"],
  no_picture: ["No picture", "无图片"],
  since: ["since {time}", "自 {time}"],
  heard: ["Heard", "听到"],
  read: ["Read", "看到文字"],
  runner_up: ["Runner-up", "次选"],
  why: ["Why?", "依据"],
  frame_alt: ["Frame of {room}", "{room} 的画面"],
  frame_alt_box: ["Frame of {room}, the product marked", "{room} 的画面，已标出商品"],
  page_alt: ["Catalogue picture of {title}", "{title} 的商品图"],
  state_live: ["Live", "直播中"],
  state_announced: ["Announced", "已预告"],
  state_connecting: ["Connecting", "连接中"],
  state_stalled: ["Stalled", "卡顿"],
  state_ended: ["Ended", "已结束"],
  state_failed: ["Failed", "失败"],
  state_unknown: ["Unknown", "未知"],
  state_lagging: ["Lagging", "延迟"],
  state_silent: ["Silent", "失联"],
  trouble_stalled: ["no frame for {s}", "已 {s} 无画面"],
  trouble_lagging: ["recognition is {s} behind", "识别落后 {s}"],
  trouble_silent: ["capture has told nothing for {s}", "采集端已 {s} 无消息"],
  trouble_announced: ["no capture has taken it up yet", "尚无采集端接手"],

  // confidence
  sure_5: ["Almost certain", "几乎确定"],
  sure_4: ["Very likely", "很可能"],
  sure_3: ["Likely", "可能"],
  sure_2: ["Uncertain", "不确定"],
  sure_1: ["Doubtful", "存疑"],

  // room
  timeline: ["Time line", "时间轴"],
  timeline_help: ["Arrow keys move by a second, with Shift by ten.", "方向键移动 1 秒，按住 Shift 移动 10 秒。"],
  timeline_value: ["{time}: {what}", "{time}：{what}"],
  connection_no: ["Connection {n}", "第 {n} 次连接"],
  reconnects: ["reconnected {n} ×", "重连 {n} 次"],
  gap: ["Gap: {reason}", "缺口：{reason}"],
  gaps: ["Gaps", "缺口"],
  sightings: ["Sightings", "商品展示"],
  transcript: ["Transcript", "讲解文字"],
  no_transcript: ["Nothing was heard here.", "这一段没有语音。"],
  no_sightings: ["No product was recognised yet.", "尚未识别到商品。"],
  nothing_here: ["nothing from the catalogue", "没有库内商品"],
  zoom_in: ["Zoom in", "放大"],
  zoom_out: ["Zoom out", "缩小"],
  older: ["Show older sightings", "显示更早的记录"],
  from_to: ["{from} to {to}", "{from} 至 {to}"],
  follow: ["Follow live", "跟随直播"],

  // detection
  detection: ["Detection", "识别结果"],
  frames: ["Frames", "画面"],
  frame_at: ["Frame at {time}", "{time} 的画面"],
  matching: ["Matching catalogue picture", "匹配的商品图"],
  scores: ["Why this product", "为何是它"],
  confidence: ["Confidence", "置信度"],
  threshold: ["threshold", "阈值"],
  seen_score: ["Seen", "画面"],
  seen_note: ["likeness of the best region to the catalogue picture", "最佳区域与商品图的相似度"],
  heard_note: ["match of the words that were said", "语音与商品的匹配度"],
  read_note: ["match of the words in the picture", "画面文字与商品的匹配度"],
  candidates: ["Candidates", "候选商品"],
  belief: ["How the belief went", "置信度变化"],
  belief_alt: ["Confidence from {from} to {to}; at most {max}", "{from} 至 {to} 的置信度；最高 {max}"],
  event: ["Event", "事件"],
  copy: ["Copy event", "复制事件"],
  copied: ["Copied", "已复制"],
  look_again: ["Look at this again", "重新识别"],
  look_again_why: ["Sends its stretch of the file, or kept frames, through the present model.", "用当前模型重新识别文件中的这一段或已保存的画面。"],
  looked_at_file: ["Looked at: the file ({count} frames),", "依据：文件（{count} 帧）："],
  looked_at_frames: ["Looked at: kept frames ({count}),", "依据：已保存的画面（{count} 帧）："],
  looking_again: ["Looking again", "正在重新识别"],
  before: ["Then", "当时"],
  after: ["Now", "现在"],
  same_result: ["The present model says the same.", "当前模型结论相同。"],
  other_result: ["The present model says something else.", "当前模型结论不同。"],
  nothing_found: ["No product", "没有商品"],
  status_started: ["Began", "开始"],
  status_updated: ["Goes on", "持续"],
  status_ended: ["Ended", "结束"],
  in_room: ["in {room}", "在 {room}"],
  no_frames: ["No frames are kept of this detection.", "此识别结果没有保存画面。"],

  // verdicts
  verdict: ["Your word", "您的判定"],
  right: ["Right", "正确"],
  wrong: ["Wrong", "错误"],
  other: ["Another product", "是其他商品"],
  not_in_catalogue: ["Not in the catalogue", "不在商品库"],
  undo: ["Undo", "撤销"],
  judged_right: ["Judged right", "已判定：正确"],
  judged_wrong: ["Judged wrong", "已判定：错误"],
  judged_other: ["Judged: another product, {title}", "已判定：是其他商品 {title}"],
  judged_not_in_catalogue: ["Judged: not in the catalogue", "已判定：不在商品库"],
  by: ["by {who}", "由 {who} 判定"],
  which_product: ["Which product is it?", "是哪件商品？"],
  search_products: ["Search products", "搜索商品"],

  // review
  review_why: ["Likely wrong ones come first.", "最可能出错的排在最前。"],
  "low confidence": ["low confidence", "置信度低"],
  "small margin": ["small margin to the runner-up", "与次选相差很小"],
  "often confused": ["often confused pair", "易混淆的商品"],
  n_left: ["{n} to review", "待复核 {n} 条"],
  all_done: ["Nothing to review", "没有待复核的内容"],
  all_done_why: ["New detections that may be wrong appear here by themselves.", "新的可疑识别结果会自动出现在这里。"],
  keys: ["Keys", "快捷键"],
  previous: ["Previous", "上一条"],
  next: ["Next", "下一条"],
  undone: ["Undone", "已撤销"],
  details: ["Details", "详情"],

  // catalogue
  find_product: ["Find a product", "查找商品"],
  no_products: ["No product matches.", "没有符合条件的商品。"],
  empty_catalogue: ["The catalogue is empty.", "商品库为空。"],
  failed: ["Cannot be recognised", "无法识别"],
  look_alikes: ["Look-alikes", "相似商品"],
  no_look_alikes: ["Nothing in the catalogue looks much like it.", "商品库中没有相似的商品。"],
  twin: ["Nearly a twin: easily confused", "几乎相同：极易混淆"],
  twins_note: ["This product has a twin. Pictures that show what differs, and names that hosts say, keep them apart.", "此商品有几乎相同的商品。请提供能显示差异的图片，以及主播会说的名称。"],
  likeness: ["likeness {score}", "相似度 {score}"],
  recent_sightings: ["Recent sightings", "最近的展示"],
  never_seen: ["Not seen yet.", "尚未出现过。"],
};

function preferred() {
  const code = localStorage.getItem("language") ?? navigator.language;
  return code.startsWith("zh") ? "zh" : "en";
}

export const language = createStore({ code: preferred() });

export function setLanguage(code) {
  localStorage.setItem("language", code);
  language.set({ code });
}

export function t(name, values = {}) {
  const [en, zh] = WORDS[name] ?? [name, name];
  const text = language.get().code === "zh" ? zh : en;
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

// Media time, as players write it: 1:02:03.
export function clock(ms) {
  const s = Math.floor(ms / 1000);
  const [hours, minutes, seconds] = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

export function lasting(seconds) {
  const zh = language.get().code === "zh";
  if (seconds < 10) return `${seconds.toFixed(1)}${zh ? " 秒" : " s"}`;
  if (seconds < 120) return `${Math.round(seconds)}${zh ? " 秒" : " s"}`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}${zh ? " 分钟" : " min"}`;
  return `${Math.round(seconds / 3600)}${zh ? " 小时" : " h"}`;
}

export const percent = (share) => `${Math.round(share * 100)} %`;

export const sureness = (confidence) =>
  confidence >= 0.95 ? 5 : confidence >= 0.8 ? 4 : confidence >= 0.6 ? 3 : confidence >= 0.4 ? 2 : 1;
