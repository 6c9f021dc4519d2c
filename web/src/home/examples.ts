/** Goals to begin with. Those of rules mode are ones that its fixed rules understand (tests/console holds them to it). */

import type { Language } from "../i18n/dictionary";

export type Example = { readonly label: string; readonly goal: string };

type Examples = Readonly<Record<Language, readonly Example[]>>;

export const FOR_MODELS: Examples = {
  zh: [
    { label: "画一张图", goal: "计算前 100 个质数，画出它们的增长曲线，保存为 primes.svg，并用一段话说明。" },
    { label: "整理数据", goal: "生成一份 1000 行的模拟销售数据 sales.csv，按月汇总到 summary.csv，并把要点写进 report.md。" },
    { label: "写个小工具", goal: "用 Python 写一个命令行待办工具 todo.py，支持添加、列出、完成；附上测试并运行。" },
    { label: "做个网页", goal: "做一个单文件网页 clock.html：显示现在的时间，可切换深色和浅色，手机上也好看。" },
  ],
  en: [
    { label: "Draw a chart", goal: "Compute the first 100 primes, plot how they grow, save the plot as primes.svg, and explain it in a paragraph." },
    { label: "Sort out data", goal: "Make 1000 rows of sample sales data in sales.csv, add them up by month in summary.csv, and write the main points to report.md." },
    { label: "Write a tool", goal: "Write a command line to-do tool todo.py in Python that adds, lists and completes items; add tests and run them." },
    { label: "Make a page", goal: "Make a one-file web page clock.html that shows the time, switches between dark and light, and looks good on a phone." },
  ],
};

export const FOR_RULES: Examples = {
  zh: [
    { label: "Hello world", goal: "写一个打印 hello world 的 Python 脚本" },
    { label: "建一个文件", goal: "创建文件 notes.txt，内容为：今天从这里开始" },
    { label: "运行命令", goal: "运行 `python3 -c 'print(sum(range(101)))'`" },
    { label: "分几步做", goal: "1. 创建文件 a.txt，内容为：第一行\n2. 在 a.txt 中追加：第二行\n3. 读取 a.txt\n4. 列出所有文件" },
  ],
  en: [
    { label: "Hello world", goal: "Write a Python script that prints hello world" },
    { label: "Make a file", goal: "Create a file notes.txt with the content: it begins here" },
    { label: "Run a command", goal: "Run `python3 -c 'print(sum(range(101)))'`" },
    { label: "Several steps", goal: "1. Create a file a.txt with the text: first line\n2. Append the line second line to a.txt\n3. Read a.txt\n4. List all files" },
  ],
};
