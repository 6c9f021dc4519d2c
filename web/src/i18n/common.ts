/** What several pages say. */

import { dictionary } from "./dictionary";

export const common = dictionary(
  {
    cancel: "取消",
    close: "关闭",
    copy: "复制",
    copied: "已复制",
    notCopied: "浏览器不允许写入剪贴板。请手动选中文字复制。",
    delete: "删除",
    loading: "加载中…",
    more: "更多",
    notices: "通知",
    requestId: "请求编号",
    retry: "重试",
    save: "保存",
    search: "搜索",
    unexpected: "发生了意外错误。",
    unreachable: "无法连接服务器。请检查网络后重试。",
    unknown: "未知",
    skipToContent: "跳到主要内容",
  },
  {
    cancel: "Cancel",
    close: "Close",
    copy: "Copy",
    copied: "Copied",
    notCopied: "The browser does not allow writing to the clipboard. Select the text and copy it by hand.",
    delete: "Delete",
    loading: "Loading…",
    more: "More",
    notices: "Notices",
    requestId: "Request id",
    retry: "Try again",
    save: "Save",
    search: "Search",
    unexpected: "Something unexpected went wrong.",
    unreachable: "The server could not be reached. Check the network and try again.",
    unknown: "unknown",
    skipToContent: "Skip to the content",
  },
);

export const statuses = dictionary(
  {
    queued: "排队中",
    running: "运行中",
    waiting: "等待回复",
    stopping: "正在停止",
    completed: "已完成",
    failed: "失败",
    stopped: "已停止",
  },
  {
    queued: "queued",
    running: "running",
    waiting: "waiting for you",
    stopping: "stopping",
    completed: "completed",
    failed: "failed",
    stopped: "stopped",
  },
);
