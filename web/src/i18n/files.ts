/** Files of a task: the tree, uploads, previews, changes. */

import { dictionary } from "./dictionary";

export const files = dictionary(
  {
    tooLarge: "文件有 {size}，这台服务器每个文件最多接收 {most}。",
    tooMany: "一次最多上传 {most} 个文件；其余的没有加入。请把文件夹打包成一个压缩文件再上传。",
    notRead: "浏览器无法读取拖入的内容。请改用“上传”按钮。",
    removeFile: "移除 {name}",
    retryFile: "重新上传 {name}",
    cancelFile: "取消上传 {name}",
    stageChosen: "已选择",
    stageWaiting: "等待上传",
    stageSending: "正在上传",
    stageExists: "已有同名文件",
    stageDone: "已上传",
    stageFailed: "上传失败",
    stageCancelled: "已取消",
  },
  {
    tooLarge: "The file has {size}; this server takes at most {most} a file.",
    tooMany: "At most {most} files can be uploaded at once; the others were left out. Pack the folder into one archive and upload that.",
    notRead: "The browser could not read what was dropped. Use the upload button instead.",
    removeFile: "Remove {name}",
    retryFile: "Upload {name} again",
    cancelFile: "Cancel the upload of {name}",
    stageChosen: "chosen",
    stageWaiting: "waiting",
    stageSending: "uploading",
    stageExists: "a file of that name exists",
    stageDone: "uploaded",
    stageFailed: "failed",
    stageCancelled: "cancelled",
  },
);
