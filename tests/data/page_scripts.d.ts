// What Gradio puts into the scope of a component's script, and looser types for the nodes that scripts find.
declare const element: HTMLElement;
declare const props: { value: any };
declare const server: Record<string, (payload: object) => Promise<any>>;
declare function trigger(name: string, detail?: object): void;
declare function watch(name: string, callback: () => void): void;
declare function upload(file: File): Promise<{ path: string }>;
interface Window { upQueue?: any; upOpened?: boolean }
interface Element { closest(selectors: string): any; value?: any; readonly dataset: DOMStringMap; readonly isContentEditable: boolean }
interface ParentNode { querySelector(selectors: string): any; querySelectorAll(selectors: string): NodeListOf<any> }
interface EventTarget { closest?(selectors: string): any }
